//! The JSON document that a verb prints: a header that is the same for all verbs, then the verb's
//! own fields (`docs/json.md`).

use serde::{Serialize, Serializer};
use std::io::{self, Write};
use std::time::SystemTime;

/// Version of the format of all documents. It grows when a field is removed or renamed, or when its
/// type or meaning changes; a new field does not change it.
const SCHEMA: u32 = 1;

/// One document. The answer has to serialize as an object: its fields follow those of the header.
#[derive(Clone, Debug, Serialize)]
pub struct Document<T> {
    schema: u32,
    #[serde(serialize_with = "rfc3339")]
    generated: SystemTime,
    #[serde(flatten)]
    answer: T,
}

fn rfc3339<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_rfc3339_seconds(*time))
}

impl<T: Serialize> Document<T> {
    /// The document of an answer that was made now.
    pub fn now(answer: T) -> Self {
        Self::at(SystemTime::now(), answer)
    }

    /// The document of an answer that was made at `generated`.
    pub const fn at(generated: SystemTime, answer: T) -> Self {
        Self {
            schema: SCHEMA,
            generated,
            answer,
        }
    }

    /// Writes the indented text, with a newline at the end. What is written is not kept, so the
    /// answer may be larger than memory.
    pub fn write_indented(&self, mut out: impl Write) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut out, self)?;
        out.write_all(b"\n")
    }

    /// Writes the text in one line, likewise.
    pub fn write_line(&self, mut out: impl Write) -> io::Result<()> {
        serde_json::to_writer(&mut out, self)?;
        out.write_all(b"\n")
    }

    /// The indented text, with a newline at the end.
    pub fn indented(&self) -> serde_json::Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[derive(Serialize)]
    struct Answer {
        instances: [u8; 2],
    }

    /// 2026-11-27 08:02:08.9 UTC.
    fn document() -> Document<Answer> {
        let generated = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_766_528_900);
        Document::at(generated, Answer { instances: [1, 2] })
    }

    fn line<T: Serialize>(document: &Document<T>) -> String {
        let mut text = Vec::new();
        document.write_line(&mut text).expect("serializable");
        String::from_utf8(text).expect("text")
    }

    #[test]
    fn the_header_comes_first_and_the_answer_is_not_nested() {
        assert_eq!(
            line(&document()),
            "{\"schema\":1,\"generated\":\"2026-11-27T08:02:08Z\",\"instances\":[1,2]}\n"
        );
    }

    #[test]
    fn both_texts_are_one_document() {
        let document = document();
        let line = line(&document);
        let indented = document.indented().expect("serializable");
        let compact: String = indented.split_whitespace().collect();
        assert_eq!(compact + "\n", line);
    }

    /// Counts what is written, and how much at once.
    #[derive(Default)]
    struct Gauge {
        bytes: usize,
        largest: usize,
    }

    impl Write for Gauge {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.bytes += bytes.len();
            self.largest = self.largest.max(bytes.len());
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_document_is_written_in_small_pieces() {
        #[derive(Serialize)]
        struct Large {
            rows: Vec<u64>,
        }
        let answer = Large {
            rows: vec![u64::MAX; 1000],
        };
        let mut gauge = Gauge::default();
        let document = Document::now(answer);
        document.write_indented(&mut gauge).expect("it is counted");
        assert!(gauge.bytes > 20_000 && gauge.largest < 100);
    }
}
