//! A FAT file system in memory.

use std::io::{self, Cursor, Write};

use fatfs::{Date, DateTime, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};

use super::nocloud::SeedFile;

/// The label by which the NoCloud data source knows its disk.
const LABEL: [u8; 11] = *b"cidata     ";
const MIB: usize = 1 << 20;

/// The image of a disk that holds `files`; the same bytes for the same files.
pub(super) fn image(files: &[SeedFile]) -> io::Result<Vec<u8>> {
    let contents: usize = files.iter().map(|(_, contents)| contents.len()).sum();
    // Twice the contents leaves room for tables and half-used clusters.
    let mut disk = Cursor::new(vec![0; (2 * contents + MIB).next_multiple_of(MIB)]);
    fatfs::format_volume(&mut disk, FormatVolumeOptions::new().volume_label(LABEL))?;
    let volume = FileSystem::new(&mut disk, FsOptions::new().time_provider(&Epoch))?;
    for (name, contents) in files {
        let mut file = volume.root_dir().create_file(name)?;
        file.write_all(contents)?;
        file.flush()?;
    }
    volume.unmount()?;
    Ok(disk.into_inner())
}

/// Every file is from the first day of FAT's calendar.
#[derive(Debug)]
struct Epoch;

const FIRST_DAY: Date = Date { year: 1980, month: 1, day: 1 };

impl TimeProvider for Epoch {
    fn get_current_date(&self) -> Date {
        FIRST_DAY
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: FIRST_DAY, time: Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}
