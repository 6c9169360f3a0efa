// SPDX-License-Identifier: Apache-2.0
//! The date of every file that is written to a FAT file system.
//!
//! The library's own choice without a clock has month 0 and day 0, which no calendar has: EDK2's driver then refuses to
//! rename the file, and systemd-boot counts boot attempts by renaming. Images are reproducible, and a device may have no
//! clock, so the date is fixed.

use fatfs::{Date, DateTime, Time, TimeProvider};

/// 1 January 1980, the first date that FAT knows (Microsoft FAT specification, section 6.3).
#[derive(Debug)]
pub struct FirstDay;

/// What [`fatfs::FsOptions::time_provider`] takes.
pub static FIXED_DATE: FirstDay = FirstDay;

const DATE: Date = Date { year: 1980, month: 1, day: 1 };

impl TimeProvider for FirstDay {
    fn get_current_date(&self) -> Date {
        DATE
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: DATE, time: Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}
