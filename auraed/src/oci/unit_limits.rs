//! Limits of a container whose cgroup is a unit of systemd.
//!
//! systemd accepts a property, and only logs when the kernel then refuses it. So the kernel is asked first, and what it took is told to systemd,
//! which would put its own values back at some later time.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use libcgroups::common::{CgroupManager, ControllerOpt};
use libcgroups::v2::manager::Manager;
use libcontainer::container::Container;
use oci_spec::runtime::{LinuxCpu, LinuxResources};

use super::OciError;
use crate::cgroup::{CgroupError, Hierarchies};

/// The cgroup of a container with a process, as its hierarchy's mount and the path below that.
pub struct Unit {
    mount: PathBuf,
    path: PathBuf,
}

impl Unit {
    pub fn of(container: &Container) -> Result<Self, OciError> {
        let failed = |error: CgroupError| OciError::runtime("finding the container's cgroup", error);
        let pid = container.pid().ok_or_else(|| OciError::Input { path: "container".into(), reason: "has no process".into() })?;
        let found = Hierarchies::detect().and_then(|all| all.directories_of(pid.as_raw().cast_unsigned())).map_err(failed)?;
        let (hierarchy, directory) =
            found.into_iter().find(|(hierarchy, _)| hierarchy.is_v2()).ok_or_else(|| failed(CgroupError::NoHierarchy))?;
        let path = directory.strip_prefix(&hierarchy.mount).unwrap_or(&directory).to_owned();
        Ok(Self { mount: hierarchy.mount, path })
    }

    /// Writes the limits into the cgroup.
    pub fn ask_kernel(&self, resources: &LinuxResources) -> Result<(), OciError> {
        self.enable(&unusual_controllers(resources));
        let failed = |error| OciError::runtime("limits", error);
        let manager = Manager::new(self.mount.clone(), self.path.clone()).map_err(failed)?;
        manager.apply(&options(resources)).map_err(failed)
    }

    /// From the root down to the unit. A failure shows when the limit is written.
    fn enable(&self, controllers: &BTreeSet<&str>) {
        let mut directory = self.mount.clone();
        for part in &self.path {
            for controller in controllers {
                let _ = fs::write(directory.join("cgroup.subtree_control"), format!("+{controller}"));
            }
            directory.push(part);
        }
    }

    /// systemd's quota and period are one limit with a default: what is not asked for is named as it is.
    pub fn complete(&self, resources: &mut LinuxResources) {
        if let Some(cpu) = resources.cpu() {
            let current = fs::read_to_string(self.mount.join(&self.path).join("cpu.max")).unwrap_or_default();
            let cpu = with_quota(cpu, &current);
            resources.set_cpu(Some(cpu));
        }
    }
}

/// Those that systemd enables only for units with a property of theirs, and hugetlb, which it does not know.
fn unusual_controllers(resources: &LinuxResources) -> BTreeSet<&str> {
    let has_cpuset = resources.cpu().as_ref().is_some_and(|cpu| cpu.cpus().is_some() || cpu.mems().is_some());
    let has_hugetlb = resources.hugepage_limits().as_ref().is_some_and(|limits| !limits.is_empty());
    // `CONTROLLER.FILE`
    let unified = resources.unified().iter().flatten().filter_map(|(file, _)| file.split('.').next());
    let named = [("cpuset", has_cpuset), ("hugetlb", has_hugetlb), ("io", resources.block_io().is_some())];
    named.into_iter().filter_map(|(controller, is_asked_for)| is_asked_for.then_some(controller)).chain(unified).collect()
}

/// For a cgroup manager that is to write limits and nothing else.
pub fn options(resources: &LinuxResources) -> ControllerOpt<'_> {
    ControllerOpt { resources, disable_oom_killer: false, oom_score_adj: None, freezer_state: None }
}

/// `current` is `QUOTA PERIOD`, with a quota of `max` for none.
fn with_quota(cpu: &LinuxCpu, current: &str) -> LinuxCpu {
    let mut fields = current.split_whitespace();
    let quota = fields.next().and_then(|field| field.parse().ok());
    let period = fields.next().and_then(|field| field.parse().ok());
    let mut cpu = cpu.clone();
    cpu.set_quota(cpu.quota().or(quota));
    cpu.set_period(cpu.period().or(period));
    cpu
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn cpu(quota: Option<i64>, period: Option<u64>) -> LinuxCpu {
        let mut cpu = LinuxCpu::default();
        cpu.set_quota(quota);
        cpu.set_period(period);
        cpu
    }

    #[test]
    fn a_limit_has_its_controller_enabled() {
        let resources = |json: &str| serde_json::from_str::<LinuxResources>(json).unwrap();
        let none = resources(r#"{ "memory": { "limit": 1 }, "cpu": { "quota": 1 }, "hugepageLimits": [] }"#);
        assert!(unusual_controllers(&none).is_empty());
        let all = resources(
            r#"{ "cpu": { "mems": "0" }, "hugepageLimits": [{ "pageSize": "2MB", "limit": 0 }], "blockIO": {}, "unified": { "misc.max": "1" } }"#,
        );
        assert_eq!(unusual_controllers(&all), BTreeSet::from(["cpuset", "hugetlb", "io", "misc"]));
    }

    #[test]
    fn a_quota_that_is_not_asked_for_stays() {
        assert_eq!(with_quota(&cpu(None, None), "50000 100000\n"), cpu(Some(50_000), Some(100_000)));
        assert_eq!(with_quota(&cpu(Some(20_000), None), "50000 40000\n"), cpu(Some(20_000), Some(40_000)));
        assert_eq!(with_quota(&cpu(None, None), "max 100000\n"), cpu(None, Some(100_000)));
        assert_eq!(with_quota(&cpu(Some(1), Some(2)), ""), cpu(Some(1), Some(2)));
    }
}
