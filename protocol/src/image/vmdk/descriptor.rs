//! The embedded descriptor: lines of text, of which each has to be known.
//!
//! QEMU looks for `parentFileNameHint` and the CIDs anywhere in the text, even in a comment, and always in
//! the 20 sectors after the header; others read it line by line. So that all read the same, the text ends
//! with the first NUL, nothing follows it but [what QEMU leaves there](MOST_LEFT_OVER), and the words that lead to another
//! file may stand nowhere.

use super::VmdkError;

/// QEMU writes a new CID into the text, and when that has fewer digits than the old one, the last bytes of the old text stay
/// behind the end of the new one.
const MOST_LEFT_OVER: usize = 7;
const NO_PARENT: &str = "ffffffff";
/// Words that only occur with another file, whatever their case.
const PARENT_WORDS: [&str; 2] = ["parentfilenamehint", "parenthint"];

/// What the text says of the disk.
#[derive(Debug)]
pub(super) struct Descriptor {
    pub(super) stream_optimized: bool,
    pub(super) extent_sectors: u64,
}

/// What has been read so far.
#[derive(Default)]
struct Found {
    version: Option<()>,
    cid: Option<()>,
    parent_cid: Option<()>,
    stream_optimized: Option<bool>,
    extents: Vec<u64>,
}

/// `bytes` is the place that the header gives the descriptor.
pub(super) fn parse(bytes: &[u8]) -> Result<Descriptor, VmdkError> {
    let damaged = VmdkError::DescriptorText;
    let end = bytes.iter().position(|byte| *byte == 0).ok_or(damaged("it has no end"))?;
    let (text, padding) = bytes.split_at(end);
    let written = padding.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
    let left_over = &padding[1..written.max(1)];
    if left_over.len() > MOST_LEFT_OVER || !text.ends_with(left_over) {
        return Err(damaged("something follows its end"));
    }
    // Names in old code pages are not UTF-8, and are not used.
    let text = String::from_utf8_lossy(text);
    let lower = text.to_ascii_lowercase();
    if PARENT_WORDS.iter().any(|word| lower.contains(word)) {
        return Err(VmdkError::Parent);
    }
    let mut found = Found::default();
    for (line, number) in text.split('\n').zip(1..) {
        found.line(line.strip_suffix('\r').unwrap_or(line), number)?;
    }
    if found.version.and(found.cid).and(found.parent_cid).is_none() {
        return Err(damaged("version, CID or parentCID is missing"));
    }
    let stream_optimized = found.stream_optimized.ok_or(damaged("createType is missing"))?;
    match found.extents[..] {
        [extent_sectors] => Ok(Descriptor { stream_optimized, extent_sectors }),
        _ => Err(VmdkError::Extents(found.extents.len())),
    }
}

impl Found {
    fn line(&mut self, line: &str, number: usize) -> Result<(), VmdkError> {
        let unknown = |what| Err(VmdkError::Descriptor { line: number, what });
        if line.chars().any(|c| c.is_control() && c != '\t') {
            return unknown("it has control characters");
        }
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let first = line.split_whitespace().next().unwrap_or_default();
        if matches!(first, "RW" | "RDONLY" | "NOACCESS") {
            self.extents.push(extent(line, number)?);
            return Ok(());
        }
        let Some((key, value)) = line.split_once('=') else {
            return unknown("it is neither extent nor setting");
        };
        let key = key.trim();
        let value = value.trim();
        let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
        let again = match key {
            "version" if matches!(value, "1" | "2" | "3") => self.version.replace(()).is_some(),
            "CID" if is_cid(value) => self.cid.replace(()).is_some(),
            "parentCID" if value == NO_PARENT => self.parent_cid.replace(()).is_some(),
            "parentCID" if is_cid(value) => return Err(VmdkError::Parent),
            "isNativeSnapshot" if value == "no" => false,
            "encoding" => false,
            "createType" => {
                let stream_optimized = match value {
                    "monolithicSparse" => false,
                    "streamOptimized" => true,
                    other => return Err(VmdkError::CreateType(shown(other))),
                };
                self.stream_optimized.replace(stream_optimized).is_some()
            }
            // What changed since the last backup, kept beside the disk.
            "changeTrackPath" | "digestFilename" => return Err(VmdkError::OtherFile { line: number }),
            key if key.starts_with("ddb.") => false,
            _ => return unknown("an unknown setting or value"),
        };
        if again { unknown("the setting is there twice") } else { Ok(()) }
    }
}

fn is_cid(value: &str) -> bool {
    (1..=8).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// `RW 2048 SPARSE "disk.vmdk"`; gives the sectors. The name is of this very file, whatever it is called by now.
fn extent(line: &str, number: usize) -> Result<u64, VmdkError> {
    let unknown = |what| VmdkError::Descriptor { line: number, what };
    let mut words = line.splitn(4, char::is_whitespace);
    let (access, sectors) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (kind, name) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().trim());
    if kind != "SPARSE" {
        return Err(VmdkError::ExtentType { kind: shown(kind) });
    }
    if access == "NOACCESS" {
        return Err(unknown("an extent without access"));
    }
    let sectors = sectors.parse().map_err(|_| unknown("the extent's size is no number"))?;
    let name = name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    let name = name.ok_or(unknown("the extent's name is not in quotes at the end"))?;
    // A scheme, a drive, a path or an option of a block driver.
    let elsewhere = name.contains(['/', '\\', ':', '"', '%', '{']) || matches!(name, "" | "." | "..");
    if elsewhere { Err(VmdkError::OtherFile { line: number }) } else { Ok(sectors) }
}

/// Enough of a word to recognise it by.
fn shown(word: &str) -> String {
    word.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "version=1\nCID=12a44a\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\nRW 8 SPARSE \"d.vmdk\"\n";

    #[test]
    fn only_the_end_of_an_older_text_may_follow() {
        let with = |behind: &str| parse(format!("{TEXT}\0{behind}\0\0").as_bytes());
        for behind in ["", "\n", "mdk\"\n"] {
            assert_eq!(with(behind).unwrap().extent_sectors, 8, "{behind:?}");
        }
        for behind in ["x", "CID=1\n", ".vmdk\"\n\0\n", " \"d.vmdk\"\n"] {
            assert!(matches!(with(behind), Err(VmdkError::DescriptorText(_))), "{behind:?}");
        }
    }
}
