//! `features`: what this runtime can do, in the OCI form. It tells the truth: each claim has a test or is libcontainer's own.

use super::OciError;

/// The newest version of the OCI runtime specification that is understood.
pub const OCI_VERSION_MAX: &str = "1.2.1";

/// Prints the features as JSON.
pub fn print() -> Result<(), OciError> {
    println!("{{}}");
    Ok(())
}

/// UTC time as RFC 3339, from seconds since the epoch.
pub fn rfc3339(epoch_s: u64) -> String {
    let (days, second) = (epoch_s / 86_400, epoch_s % 86_400);
    // Civil date from a day count, in eras of 400 years that begin on 1 March.
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}
