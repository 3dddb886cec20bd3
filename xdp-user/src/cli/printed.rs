//! What is printed, without anything that a terminal would obey: names of interfaces, firewall rules and the
//! like may come from others.

use std::io::{self, Write};
use xdp_user::error::text::printable;

/// Writes text by lines. In a JSON document the characters keep their meaning, because they can stand only in
/// its strings, and are written as JSON writes them.
pub(crate) struct Printed<W>(pub(crate) W);

impl<W: Write> Write for Printed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let is_plain = |byte: &u8| *byte == b'\n' || matches!(byte, b' '..=b'~');
        if bytes.iter().all(is_plain) {
            return self.0.write_all(bytes).map(|()| bytes.len());
        }
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, end) = match line {
                [text @ .., b'\n'] => (text, "\n"),
                text => (text, ""),
            };
            let text = String::from_utf8_lossy(text);
            self.0.write_all(printable(&text).as_bytes())?;
            self.0.write_all(end.as_bytes())?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: &str) -> String {
        let mut out = Printed(Vec::new());
        out.write_all(text.as_bytes()).expect("memory");
        String::from_utf8(out.0).expect("UTF-8")
    }

    #[test]
    fn lines_stay_lines_and_a_terminal_has_nothing_to_obey() {
        assert_eq!(printed("on büro\n\n  two\n"), "on büro\n\n  two\n");
        assert_eq!(printed("w\u{1b}[2J\n\r"), "w\\u001b[2J\n\\u000d");
    }

    #[test]
    fn a_json_document_keeps_its_meaning() {
        let name = "w\u{1b}[2J\u{9b}31m\u{7f}\u{202e}\"\\";
        let text = serde_json::to_string_pretty(&[name]).expect("serializable");
        let text = printed(&text);
        assert!(
            !text.contains(|c: char| c != '\n' && c.is_control()),
            "{text}"
        );
        let read: Vec<String> = serde_json::from_str(&text).expect("JSON");
        assert_eq!(read, [name]);
    }
}
