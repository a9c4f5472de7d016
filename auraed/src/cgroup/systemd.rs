//! Names as systemd gives them to cgroups.

use libcgroups::common::{CgroupConfig, CgroupManager, create_cgroup_manager};

use super::CgroupError;

/// The path of a slice: each `-` begins a level, so `a-b.slice` is `a.slice/a-b.slice`.
pub fn expand_slice(slice: &str) -> Result<String, CgroupError> {
    let bad = || CgroupError::BadSlice { slice: slice.to_owned() };
    let stem = slice.strip_suffix(".slice").ok_or_else(bad)?;
    if stem == "-" {
        return Ok(String::new());
    }
    if stem.is_empty() || stem.contains(['/', '\0', '\n']) || stem.split('-').any(str::is_empty) {
        return Err(bad());
    }
    let mut path = String::new();
    let mut prefix = String::new();
    for part in stem.split('-') {
        if !prefix.is_empty() {
            prefix.push('-');
            path.push('/');
        }
        prefix.push_str(part);
        path.push_str(&prefix);
        path.push_str(".slice");
    }
    Ok(path)
}

/// Ends the slice as a unit of systemd, which otherwise keeps it for ever once it has started a scope in it. One that it does not know is success.
pub fn stop_slice(slice: &str) -> Result<(), CgroupError> {
    // libcgroups takes a name that is a slice's for the unit itself; where it lies is not looked at.
    let cgroup_path = format!("-.slice:aurae:{slice}").into();
    let failed = |reason: String| CgroupError::Systemd { slice: slice.to_owned(), reason };
    create_cgroup_manager(CgroupConfig { cgroup_path, systemd_cgroup: true, container_name: slice.to_owned() })
        .map_err(|error| failed(error.to_string()))?
        .remove()
        .map_err(|error| failed(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_expand() {
        assert_eq!(expand_slice("kubepods.slice").unwrap(), "kubepods.slice");
        assert_eq!(
            expand_slice("kubepods-burstable-pod12_ab.slice").unwrap(),
            "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12_ab.slice"
        );
        assert_eq!(expand_slice("-.slice").unwrap(), "");
    }

    #[test]
    fn what_is_no_slice_is_refused() {
        for bad in ["", ".slice", "a", "a.scope", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice", "/a.slice"] {
            assert!(expand_slice(bad).is_err(), "{bad:?}");
        }
    }
}
