//! Names from outside in what people read: quoted in commands for the shell into which they are pasted, and
//! without characters that a terminal would obey.

use std::borrow::Cow;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// A word as a shell reads it: in quotes if it has characters with a meaning to one. Characters that a
/// terminal obeys or does not show are written by their numbers, as bash, ksh and zsh read them.
pub(crate) fn quoted(word: &str) -> String {
    quoted_bytes(word.as_bytes())
}

/// A path as a shell reads it.
pub(crate) fn quoted_path(path: &Path) -> String {
    quoted_bytes(path.as_os_str().as_bytes())
}

fn quoted_bytes(bytes: &[u8]) -> String {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_-+=:,./@%".contains(byte);
    match std::str::from_utf8(bytes) {
        Ok(word) if !bytes.is_empty() && bytes.iter().all(is_plain) => word.to_owned(),
        Ok(word) if !word.contains(is_hidden) => format!("'{}'", word.replace('\'', r"'\''")),
        Ok(_) | Err(_) => {
            let mut quoted = "$'".to_owned();
            for chunk in bytes.utf8_chunks() {
                for character in chunk.valid().chars() {
                    // A quote, too: a shell that knows no `$'` (dash) would end the word at it, and obey the rest.
                    if is_hidden(character) || "'\\".contains(character) {
                        let mut buffer = [0; 4];
                        push_numbers(&mut quoted, character.encode_utf8(&mut buffer).as_bytes());
                    } else {
                        quoted.push(character);
                    }
                }
                push_numbers(&mut quoted, chunk.invalid());
            }
            quoted + "'"
        }
    }
}

fn push_numbers(text: &mut String, bytes: &[u8]) {
    text.extend(bytes.iter().map(|byte| format!("\\{byte:03o}")));
}

/// A name from outside within a sentence: what a terminal obeys, also a new line, is written by its number,
/// as in `\u001b`.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.contains(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        if is_hidden(character) {
            shown.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            shown.push(character);
        }
    }
    Cow::Owned(shown)
}

/// The same of a path.
pub(crate) fn printable_path(path: &Path) -> String {
    printable(&path.display().to_string()).into_owned()
}

/// Whether a terminal obeys a character or changes the order of others by it.
fn is_hidden(character: char) -> bool {
    const ORDER: [char; 3] = ['\u{61c}', '\u{200e}', '\u{200f}'];
    character.is_control()
        || ORDER.contains(&character)
        || ('\u{2028}'..='\u{202e}').contains(&character)
        || ('\u{2066}'..='\u{2069}').contains(&character)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, InstanceError};
    use std::ffi::OsStr;
    use std::net::Ipv4Addr;
    use std::process::Command;

    #[test]
    fn a_shell_reads_each_word_as_it_was() {
        for (word, quoted_word) in [
            ("", "''"),
            ("a_b-1.2+c:d@e,f=g%h", "a_b-1.2+c:d@e,f=g%h"),
            ("a b", "'a b'"),
            ("a;b", "'a;b'"),
            ("$HOME", "'$HOME'"),
            ("~", "'~'"),
            ("o'clock", r"'o'\''clock'"),
            ("büro", "'büro'"),
            (r"`id`&\", r"'`id`&\'"),
        ] {
            assert_eq!(quoted(word), quoted_word);
            assert_eq!(read_by("sh", &format!("%s {quoted_word}")), word.as_bytes());
        }
    }

    #[test]
    fn what_a_terminal_obeys_is_not_in_a_quoted_word() {
        for (word, quoted_word) in [
            ("a\u{1b}[2J", r"$'a\033[2J'"),
            ("a\n'b\\c", r"$'a\012\047b\134c'"),
            ("\u{202e}x\u{9b}1", r"$'\342\200\256x\302\2331'"),
        ] {
            assert_eq!(quoted(word), quoted_word);
            assert_eq!(
                read_by("bash", &format!("%s {quoted_word}")),
                word.as_bytes()
            );
        }
        // A shell without such words gets another word, and no command.
        let word = quoted("\u{1b}';echo obeyed;#");
        let read = read_by("sh", &format!("%s {word}"));
        assert!(
            !read.starts_with(b"obeyed") && !read.contains(&b'\n'),
            "{read:?}"
        );
        let bytes = b"/run/\xff1";
        let path = quoted_path(Path::new(OsStr::from_bytes(bytes)));
        assert_eq!(path, r"$'/run/\3771'");
        assert_eq!(read_by("bash", &format!("%s {path}")), bytes);
    }

    #[test]
    fn a_terminal_has_nothing_to_obey_in_a_printable_text() {
        for (text, shown) in [
            ("büro-1", "büro-1"),
            ("\u{1b}]0;x\u{7}\n", r"\u001b]0;x\u0007\u000a"),
            ("a\u{9b}2J\u{7f}\r", r"a\u009b2J\u007f\u000d"),
            ("\u{202e}txt", r"\u202etxt"),
        ] {
            assert_eq!(printable(text), shown);
        }
        let path = Path::new("/run/\u{1b}[31m");
        assert_eq!(printable_path(path), r"/run/\u001b[31m");
    }

    #[test]
    fn commands_in_errors_are_about_the_interface_whatever_its_name() {
        const NAME: &str = r#"a$b;c'd"e&"#;
        let name = || NAME.to_owned();
        let server = Ipv4Addr::new(192, 168, 0, 1);
        let errors = [
            Error::NotRoutable {
                server,
                why: "no route".to_owned(),
                lan: name(),
            },
            Error::OtherLan {
                server,
                found: name(),
                lans: name(),
                lan: name(),
            },
            Error::NoLan {
                server,
                found: name(),
            },
            Error::InterfaceTwice {
                option: "--wan",
                name: name(),
            },
            Error::ArmNotFirst { name: name() },
            Error::OtherFilter {
                interface: name(),
                filter: "kind bpf".to_owned(),
                block: "ingress",
                priority: 1,
            },
            Error::IngressQdisc { interface: name() },
            InstanceError::NotTheHolder {
                instance: "default".to_owned(),
                pid: 1,
                name: "init".to_owned(),
                place: name(),
            }
            .into(),
        ];
        for error in errors {
            let text = error.to_string();
            // Every second part is a command; one of them is the kind of a qdisc.
            let commands = text.split('`').skip(1).step_by(2);
            let commands: Vec<&str> = commands.filter(|text| *text != "ingress").collect();
            assert!(!commands.is_empty(), "{text}");
            for command in commands {
                let words = read_by("sh", &format!("'\\n%s' {command}"));
                let words = String::from_utf8(words).expect("UTF-8");
                assert!(words.lines().any(|word| word == NAME), "{command}: {words}");
            }
        }
    }

    fn read_by(shell: &str, words: &str) -> Vec<u8> {
        let script = format!("printf {words}");
        let output = Command::new(shell).args(["-c", &script]).output();
        output.expect("a shell").stdout
    }
}
