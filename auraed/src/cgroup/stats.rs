//! One sample of a cgroup.
