//! Addresses in messages: what cameras take as a password is left out.

/// A text without the secrets of the addresses in it: user and password (RFC 3986, section 3.2.1), and what stands behind the
/// question mark, where many cameras take a password as well.
pub(super) fn without_secrets(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(scheme) = rest.find("://") {
        let (front, address) = rest.split_at(scheme + "://".len());
        shown.push_str(front);
        let host_end = address.find(['/', '?', '#']).unwrap_or(address.len());
        let host = address[..host_end].rfind('@').unwrap_or(0);
        if host > 0 {
            shown.push_str("***");
        }
        let end =
            |from: usize| address[from..].find(char::is_whitespace).map_or(address.len(), |end| from + end);
        let address_end = end(host);
        let query = address[host..address_end].find('?').map_or(address_end, |query| host + query);
        shown.push_str(&address[host..query]);
        if query < address_end {
            shown.push_str("?***");
        }
        rest = &address[address_end..];
    }
    shown + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_left_out_and_everything_else_stays() {
        for (text, shown) in [
            (
                "rtsp://u:p@10.0.0.7:554/live: Connection refused",
                "rtsp://***@10.0.0.7:554/live: Connection refused",
            ),
            ("no http://u:a b@c@h/x?pwd=1&a=2 and rtsp://v@i", "no http://***@h/x?*** and rtsp://***@i"),
            ("http://h/x?user=a@b", "http://h/x?***"),
            ("http://h/a@b and more: é", "http://h/a@b and more: é"),
            ("yard=ffmpeg:rtsp://u:ü@h", "yard=ffmpeg:rtsp://***@h"),
            ("://", "://"),
            ("no address: a@b?c", "no address: a@b?c"),
        ] {
            assert_eq!(without_secrets(text), shown, "{text}");
        }
    }
}
