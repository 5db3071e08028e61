//! Records of runs, decided on again.
#![expect(clippy::unwrap_used, reason = "a test fails where it may")]

use std::{collections::VecDeque, time::Duration};

use narrows_policy::{
    CutPoint, Decision, EnergyModel, Entry, FrameInfo, Ladder, Link, LinkConfig, Planner, PlannerConfig,
    Replay, ReplayError, Rung, ServerTime, Stay, Step, Waiting,
};

fn ms(value: u64) -> Duration {
    Duration::from_millis(value)
}

fn ladder() -> Ladder {
    let rung = |level, bytes: u32, value: f64| {
        let cut_points = [(bytes / 2, 0.7 * value), (bytes, value)];
        Rung::new(level, cut_points.map(|(bytes, value)| CutPoint { bytes, value }).into()).unwrap()
    };
    Ladder::new(vec![rung(0, 20_000, 0.71), rung(1, 9_000, 0.69), rung(2, 4_000, 1.0 / 3.0)]).unwrap()
}

fn state(link: &Link, planner: &Planner, server: ServerTime) -> Entry {
    Entry::State { version: "0".into(), link: link.state(), planner: Box::new(planner.clone()), server }
}

/// A run of some seconds over a link whose rate changes, with a state at the beginning and one in the middle.
fn run(config: PlannerConfig) -> Vec<Entry> {
    let (mut planner, mut link) = (Planner::new(config), Link::new(LinkConfig::default()));
    let mut server = ServerTime::default();
    let mut entries = vec![state(&link, &planner, server)];
    let mut on_the_way: VecDeque<(Duration, Duration, u32)> = VecDeque::new();
    let mut free = Duration::ZERO;
    for tick in 0..4000u64 {
        let now = ms(tick) + Duration::from_nanos(tick * 7919 % 1000);
        while let Some((_, sent, bytes)) = on_the_way.front().copied().filter(|datagram| datagram.0 <= now) {
            on_the_way.pop_front();
            entries.push(Entry::Delivered { at: now, sent, bytes });
            link.on_delivered(now, sent, bytes);
        }
        if tick % 100 == 0 {
            server.observe(ms(5 + tick / 100));
            entries.push(Entry::Answered { took: ms(5 + tick / 100) });
            let last_answer = now + ms(300);
            let due = server.due(last_answer, &link);
            let frame = FrameInfo { id: tick / 100, source: 0, due, computed: ms(20), ladder: ladder() };
            entries.push(Entry::Captured { at: now, last_answer, frame: frame.clone() });
            planner.capture(now, frame);
        }
        if tick == 2000 {
            entries.push(state(&link, &planner, server));
        }
        loop {
            let step = planner.next(now, &link);
            entries.push(Entry::Decided { at: now, step });
            match step {
                Step::Encode { level, .. } => {
                    let ends: Vec<u32> = vec![1000 >> level, 18_000 >> level];
                    entries.push(Entry::Encoded { ends: ends.clone() });
                    planner.encoded(&ends);
                }
                Step::Send(chunk) => {
                    entries.push(Entry::Sent { at: now, bytes: chunk.bytes });
                    link.on_sent(now, chunk.bytes);
                    let service = if tick / 700 % 2 == 0 { ms(3) } else { ms(30) };
                    free = free.max(now) + service;
                    on_the_way.push_back((free + ms(40), now, chunk.bytes));
                }
                Step::Cut { .. } | Step::Drop { .. } => {}
                Step::Idle { .. } => break,
            }
        }
    }
    entries
}

fn configs() -> [PlannerConfig; 3] {
    let energy = Some(EnergyModel { computing: 4.0, per_byte: 2.3e-6, sending: 0.13 });
    let config = PlannerConfig::default();
    [config, PlannerConfig { waiting: Waiting::All, ..config }, PlannerConfig { energy, ..config }]
}

/// How many decisions were compared, and how many differ.
fn replay<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> (u64, usize) {
    let mut replay = Replay::default();
    let differences = entries.into_iter().filter_map(|entry| replay.take(entry).unwrap()).count();
    (replay.decisions(), differences)
}

#[test]
fn a_record_that_was_written_and_read_is_decided_the_same() {
    for config in configs() {
        let entries = run(config);
        let lines: Vec<String> = entries.iter().map(|entry| serde_json::to_string(entry).unwrap()).collect();
        let read: Vec<Entry> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, entries);
        let (decisions, differences) = replay(&read);
        assert!(decisions > 1000 && differences == 0, "{decisions} {differences}");
        // What was recorded from the second state on is complete too.
        let second = read.iter().rposition(|entry| matches!(entry, Entry::State { .. })).unwrap();
        let (decisions, differences) = replay(&read[second..]);
        assert!(second > 0 && decisions > 500 && differences == 0, "{decisions} {differences}");
    }
}

#[test]
fn other_observations_and_other_settings_are_decided_otherwise_and_the_rest_is_not() {
    let entries = run(configs()[0]);
    let mut slower = entries.clone();
    for entry in &mut slower {
        if let Entry::Delivered { at, .. } = entry {
            *at += ms(60);
        }
    }
    let (decisions, differences) = replay(&slower);
    assert!(differences > 0 && differences < decisions as usize / 2, "{differences} of {decisions}");
    // Bytes that cost much energy: another level, for the first frame and for later ones.
    let mut saving = entries.clone();
    for entry in &mut saving {
        if let Entry::State { planner, .. } = entry {
            let mut json = serde_json::to_value(&planner).unwrap();
            json["config"]["energy"] = serde_json::json!({"computing": 0.0, "per_byte": 1.0, "sending": 0.0});
            *planner = serde_json::from_value(json).unwrap();
        }
    }
    let mut replay = Replay::default();
    let difference = saving.iter().find_map(|entry| replay.take(entry).unwrap()).unwrap();
    let text = difference.to_string();
    assert!(text.contains("begin frame 0 at level") && text.contains("recorded: "), "{text}");
}

#[test]
fn nothing_is_compared_across_a_gap() {
    let mut entries = run(configs()[0]);
    let whole = replay(&entries).0;
    entries.drain(1000..1100);
    entries.insert(1000, Entry::Gap { entries: 100 });
    let (decisions, differences) = replay(&entries);
    assert!(decisions < whole && decisions > whole / 3 && differences == 0, "{decisions} {differences}");
    assert_eq!(replay(&entries[1..]), replay(&entries[1001..]));
}

#[test]
fn early_exits_and_gates_are_decided_by_their_figures() {
    let exit = |confidence| Stay::Exit { confidence, threshold: 0.45 };
    let gate = |distance, age| Stay::Gate { distance, threshold: 0.3, age: ms(age), max_age: ms(5000) };
    for (by, stays) in [
        (exit(0.45), true),
        (exit(0.44), false),
        (gate(0.29, 5000), true),
        (gate(0.3, 0), false),
        (gate(0.0, 5001), false),
    ] {
        assert_eq!(by.stays(), stays, "{by:?}");
        let mut replay = Replay::default();
        assert_eq!(replay.take(&Entry::Stayed { frame: 7, by, stays }), Ok(None));
        let other = replay.take(&Entry::Stayed { frame: 7, by, stays: !stays }).unwrap().unwrap();
        assert_eq!((other.decided, replay.decisions()), (Decision::Stays(stays), 2));
    }
}

#[test]
fn a_network_that_overflowed_is_not_sure_in_a_record_either() {
    let by = Stay::Exit { confidence: f64::NAN, threshold: 0.0 };
    let line = serde_json::to_string(&Entry::Stayed { frame: 1, by, stays: by.stays() }).unwrap();
    assert!(!by.stays());
    let entry = serde_json::from_str(&line).unwrap();
    assert_eq!(Replay::default().take(&entry), Ok(None), "{line}");
}

#[test]
fn states_that_no_run_has_are_refused() {
    let entries = run(configs()[0]);
    let entry = serde_json::to_value(&entries[0]).unwrap();
    for (key, value) in [
        ("datagram", serde_json::json!(0)),
        ("in_flight", serde_json::json!(u64::MAX)),
        ("fast", serde_json::json!(-1.0)),
    ] {
        let mut entry = entry.clone();
        entry["state"]["link"][key] = value;
        let entry: Entry = serde_json::from_value(entry).unwrap();
        assert_eq!(Replay::default().take(&entry), Err(ReplayError::State), "{key}");
    }
    let sending = entries.iter().find(|entry| {
        matches!(entry, Entry::State { planner, .. } if serde_json::to_value(planner).unwrap()["current"].is_object())
    });
    if let Some(entry) = sending {
        let mut entry = serde_json::to_value(entry).unwrap();
        entry["state"]["planner"]["current"]["rung"] = serde_json::json!(9);
        serde_json::from_value::<Entry>(entry).unwrap_err();
    }
}
