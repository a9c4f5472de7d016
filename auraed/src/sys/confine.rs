//! What a process gives up for good before it serves somebody it does not trust.

use std::io;

use libseccomp::{ScmpAction, ScmpFilterContext, ScmpSyscall};
pub use rustix::thread::CapabilitySet;
use rustix::thread::{CapabilitiesSecureBits, CapabilitySets};

/// Keeps these capabilities, also while the process acts as another user, and can never gain another.
pub fn keep_capabilities(kept: CapabilitySet) -> io::Result<()> {
    let fixed = CapabilitiesSecureBits::NO_ROOT
        | CapabilitiesSecureBits::NO_ROOT_LOCKED
        | CapabilitiesSecureBits::NO_SETUID_FIXUP
        | CapabilitiesSecureBits::NO_SETUID_FIXUP_LOCKED
        | CapabilitiesSecureBits::KEEP_CAPS_LOCKED
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE
        | CapabilitiesSecureBits::NO_CAP_AMBIENT_RAISE_LOCKED;
    rustix::thread::set_capabilities_secure_bits(fixed)?;
    for number in 0..u64::BITS {
        let one = CapabilitySet::from_bits_retain(1 << number);
        if kept.contains(one) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(one) {
            // Beyond the last one that this kernel knows.
            Err(rustix::io::Errno::INVAL) => break,
            other => other?,
        }
    }
    rustix::thread::set_no_new_privs(true)?;
    // What the process itself lacks cannot be kept.
    let kept = kept & rustix::thread::capabilities(None)?.permitted;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// From now on these system calls fail with EPERM, in threads made later too. Names that libseccomp does not know are of no architecture here.
pub fn refuse_system_calls(names: &[&str]) -> io::Result<()> {
    let mut filter = ScmpFilterContext::new(ScmpAction::Allow).map_err(io::Error::other)?;
    for call in names.iter().filter_map(|name| ScmpSyscall::from_name(name).ok()) {
        filter.add_rule(ScmpAction::Errno(libc::EPERM), call).map_err(io::Error::other)?;
    }
    filter.load().map_err(io::Error::other)
}

/// As many open descriptors as allowed, up to `wanted`.
pub fn raise_descriptor_limit(wanted: u64) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let current = limit.maximum.map_or(wanted, |maximum| maximum.min(wanted));
    if setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: Some(wanted) }).is_ok() {
        return Ok(());
    }
    // Without CAP_SYS_RESOURCE the hard limit stays.
    Ok(setrlimit(Resource::Nofile, Rlimit { current: Some(current), maximum: limit.maximum })?)
}
