//! The corpus, as far as the parser goes.

use std::collections::BTreeSet;

use super::corpus::{Fate, cases, honest};
use super::*;

const TARGET: &str = "/etc/canary";

#[test]
fn honest_images_are_accepted() {
    for (name, format, bytes) in honest() {
        let info = look(&bytes, format).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(info.format, format, "{name}");
        if format != Format::Raw {
            assert_eq!(info.virtual_size_bytes, 10 * crate::MIB, "{name}");
        }
        assert!((DATA_UNIT_BYTES..=crate::MIB).contains(&info.data_bytes), "{name}: {info:?}");
        for other in Format::ALL.into_iter().filter(|other| *other != format) {
            assert_eq!(verdict(&bytes, other), "image_format_mismatch", "{name} as {other:?}");
        }
    }
}

#[test]
fn hostile_images_meet_their_fate() {
    let mut names = BTreeSet::new();
    for case in cases() {
        assert!(names.insert(case.name), "{} is there twice", case.name);
        let bytes = case.bytes(TARGET);
        match (case.fate, look(&bytes, case.format)) {
            (Fate::Refused(code), Err(error)) => {
                assert_eq!(error.code(), code, "{}: {error}", case.name);
                assert!(error.is_refusal(), "{}", case.name);
                // It is for people; the host's names and raw bytes are not shown.
                let text = error.to_string();
                assert!(text.len() > 20 && text.len() < 250, "{}: {text}", case.name);
                assert!(!text.chars().any(char::is_control), "{}: {text:?}", case.name);
            }
            (Fate::Contained, Ok(_)) => {}
            (fate, found) => panic!("{}: {found:?}, expected {fate:?}", case.name),
        }
    }
    assert!(names.len() >= 150, "{} cases", names.len());
}

#[test]
fn every_shorter_file_is_refused() {
    for (name, format, bytes) in honest() {
        if format == Format::Raw {
            continue;
        }
        let step = (bytes.len() / 200).max(7);
        for length in (1..bytes.len()).step_by(step).chain([bytes.len() - 1]) {
            let found = verdict(&bytes[..length], format);
            // The stream of a compressed grain says itself where it ends; the sandbox reads it.
            let is_stream =
                name.starts_with("vmdk, stream") && length > corpus::vmdk_layout::GRAIN_AT as usize;
            assert!(
                found != "accepted" || is_stream,
                "{name}: {length} of {} bytes are accepted",
                bytes.len()
            );
        }
    }
}
