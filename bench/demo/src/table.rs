//! The tables that the demo prints, at most 100 columns wide.

use comfy_table::{CellAlignment, Table, presets};

use crate::{Photo, Summary, answer::Millis, unsplit::Comparison};

/// Columns of a table behind the first ones, which hold words.
const NUMBERS: [&str; 7] = ["packet", "JPEG 75", "decode", "head", "link", "tail", "total ms"];

/// Prints a table for each kind of task that was asked, and what they come to.
pub(crate) fn print(summary: &Summary) {
    let (scenes, photos): (Vec<&Photo>, Vec<&Photo>) =
        summary.photos.iter().partition(|photo| photo.answer.segment.is_some());
    if !photos.is_empty() {
        show(["photo", "split", "unsplit"], &photos);
    }
    if !scenes.is_empty() {
        show(["scene", "most of the mask", "as unsplit"], &scenes);
    }
    println!(
        "Packet and JPEG in bytes; the JPEG is of quality 75 and of the same pixels. Times in milliseconds,\n\
         one photo at a time on this machine: decode reads the file; head is resizing, the device's network\n\
         and the codec; link is the loopback; tail is the server's network; the total has everything."
    );
    let compared =
        summary.photos.iter().filter(|photo| matches!(photo.unsplit, Some(Comparison::Classify { .. })));
    let same = match compared.count() {
        0 => String::new(),
        count => format!("; {} of {count} classified as by the unsplit network", summary.same_top1),
    };
    println!("{} of {} photos answered{same}.", summary.answered, summary.frames);
}

fn show(words: [&str; 3], photos: &[&Photo]) {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(words.into_iter().chain(NUMBERS));
    for photo in photos {
        table.add_row(row(photo));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 1));
    }
    for column in table.column_iter_mut().skip(words.len()) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!("\n{table}");
}

fn row(photo: &Photo) -> Vec<String> {
    let answer = &photo.answer;
    let name = answer.file.file_stem().unwrap_or(answer.file.as_os_str());
    let mut row = vec![shorten(&name.to_string_lossy(), 10)];
    let (Some(bytes), Some(ms), true) = (&answer.bytes, &answer.ms, answer.is_answered()) else {
        row.push(answer.error.clone().unwrap_or_else(|| "no answer".to_owned()));
        return row;
    };
    let class = answer.classify.iter().flatten().next();
    let share = answer.segment.iter().flat_map(|mask| &mask.classes).next();
    row.push(match (class, share) {
        (Some(class), _) => named(&class.label, class.probability),
        (None, Some(share)) => named(&share.label, share.share),
        (None, None) => "–".to_owned(),
    });
    let (unsplit, jpeg) = match &photo.unsplit {
        Some(Comparison::Classify { label, probability, jpeg75_bytes, .. }) => {
            (named(label, f64::from(*probability)), jpeg75_bytes.to_string())
        }
        Some(Comparison::Segment { same_pixels, jpeg75_bytes }) => {
            (format!("{:.1} % of pixels", 100.0 * same_pixels), jpeg75_bytes.to_string())
        }
        None => ("–".to_owned(), "–".to_owned()),
    };
    row.extend([unsplit, bytes.packet.to_string(), jpeg]);
    row.extend(times(ms).map(|ms| format!("{ms:.1}")));
    row
}

/// The columns of times.
fn times(ms: &Millis) -> [f64; 5] {
    [ms.decode, ms.resize + ms.head + ms.encode, ms.network, ms.tail_infer, ms.total]
}

fn named(label: &str, probability: f64) -> String {
    format!("{} {probability:.2}", shorten(label, 11))
}

/// The first `most` characters of `text`, with a sign where some are left out.
fn shorten(text: &str, most: usize) -> String {
    match text.chars().count() <= most {
        true => text.to_owned(),
        false => text.chars().take(most - 1).chain(['…']).collect(),
    }
}
