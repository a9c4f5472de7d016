//! VmStatus.

use crate::api::supervisor::v0 as api;
use crate::vm::machine::{State, Vm};

pub fn serve(vm: &Vm, _request: api::VmStatusRequest) -> api::VmStatusResponse {
    let state = vm.state();
    let (started_at_ns, exit) = match state {
        State::NotStarted => (0, None),
        State::Running { started_at_ns } => (started_at_ns, None),
        State::Exited { started_at_ns, exit } => (started_at_ns, Some(exit)),
    };
    let guest_ready_at_ns = vm.events.ready_at_ns();
    api::VmStatusResponse {
        state: match state {
            State::NotStarted => api::VmState::NotStarted,
            State::Running { .. } => api::VmState::Running,
            State::Exited { .. } => api::VmState::Exited,
        }
        .into(),
        exit_code: exit.map_or(0, |exit| exit.code),
        oom_killed: exit.is_some_and(|exit| exit.oom_killed),
        exited_at_ns: exit.map_or(0, |exit| exit.finished_at_ns),
        console_tail: vm.console.text(),
        vmm_tail: vm.messages.text(),
        guest_ready: guest_ready_at_ns > 0,
        started_at_ns,
        guest_ready_at_ns,
    }
}
