//! Device programs for cgroup v2: their instructions, loading and attaching.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// One instruction as the kernel takes it (`struct bpf_insn`): opcode, registers, jump offset, immediate value.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn instruction(code: u8, target: u8, source: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: source << 4 | target, offset, immediate }
}

const LOAD_WORD: u8 = 0x61;
const AND_32: u8 = 0x54;
const SHIFT_RIGHT_32: u8 = 0x74;
const COPY_32: u8 = 0xbc;
const SET_64: u8 = 0xb7;
const JUMP_UNLESS_EQUAL_32: u8 = 0x56;
const JUMP_IF_EQUAL_32: u8 = 0x16;
const EXIT: u8 = 0x95;

const ANSWER: u8 = 0;
/// Holds the request at the start, anything afterwards.
const SPARE: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// Takes the request (`struct bpf_cgroup_dev_ctx`) apart into registers.
pub fn load_device_request() -> Vec<Instruction> {
    vec![
        instruction(LOAD_WORD, KIND, SPARE, 0, 0),
        instruction(AND_32, KIND, 0, 0, 0xffff),
        instruction(LOAD_WORD, ACCESS, SPARE, 0, 0),
        instruction(SHIFT_RIGHT_32, ACCESS, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, SPARE, 4, 0),
        instruction(LOAD_WORD, MINOR, SPARE, 8, 0),
    ]
}

/// Leaves the block unless the request is for this kind of device. Jumps are aimed by [`skip_to_end`].
pub fn unless_kind(kind: u8) -> Instruction {
    instruction(JUMP_UNLESS_EQUAL_32, KIND, 0, 0, i32::from(kind))
}

/// Leaves the block unless the request is for this major number.
pub fn unless_major(major: u32) -> Instruction {
    instruction(JUMP_UNLESS_EQUAL_32, MAJOR, 0, 0, major.cast_signed())
}

/// Leaves the block unless the request is for this minor number.
pub fn unless_minor(minor: u32) -> Instruction {
    instruction(JUMP_UNLESS_EQUAL_32, MINOR, 0, 0, minor.cast_signed())
}

/// Leaves the block when the request asks for more than `access`.
pub fn unless_only_access(access: u8) -> [Instruction; 3] {
    [
        instruction(COPY_32, SPARE, ACCESS, 0, 0),
        instruction(AND_32, SPARE, 0, 0, !i32::from(access)),
        instruction(JUMP_UNLESS_EQUAL_32, SPARE, 0, 0, 0),
    ]
}

/// Leaves the block when the request asks for nothing of `access`.
pub fn unless_any_access(access: u8) -> [Instruction; 3] {
    [
        instruction(COPY_32, SPARE, ACCESS, 0, 0),
        instruction(AND_32, SPARE, 0, 0, i32::from(access)),
        instruction(JUMP_IF_EQUAL_32, SPARE, 0, 0, 0),
    ]
}

/// Ends the program.
pub fn answer(allow: bool) -> [Instruction; 2] {
    [instruction(SET_64, ANSWER, 0, 0, i32::from(allow)), instruction(EXIT, 0, 0, 0, 0)]
}

/// Aims every jump of a block behind its last instruction.
pub fn skip_to_end(block: &mut [Instruction]) {
    let length = block.len();
    for (index, one) in block.iter_mut().enumerate() {
        if matches!(one.code, JUMP_UNLESS_EQUAL_32 | JUMP_IF_EQUAL_32) {
            one.offset = i16::try_from(length - index - 1).unwrap_or(i16::MAX);
        }
    }
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
/// Programs of ancestors and of others on the same cgroup stay in force beside ours.
const BPF_F_ALLOW_MULTI: u32 = 2;

/// The part of `union bpf_attr` that loading reads.
#[repr(C)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that attaching reads.
#[repr(C)]
struct AttachAttributes {
    target_fd: u32,
    program_fd: u32,
    attach_type: u32,
    flags: u32,
}

/// Hands a device program to the kernel, which verifies it.
pub fn load_device_program(program: &[Instruction]) -> io::Result<OwnedFd> {
    let attributes = LoadAttributes {
        program_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: u32::try_from(program.len()).map_err(io::Error::other)?,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
    };
    // SAFETY: the kernel reads the attributes and what they point to, all alive for the call, within the lengths given.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const attributes, size_of::<LoadAttributes>()) };
    let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: the kernel has just made this descriptor for us and nobody else knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Puts the program in force on an open cgroup directory, for as long as the cgroup exists.
pub fn attach_to_cgroup(program: &OwnedFd, cgroup: &File) -> io::Result<()> {
    let attributes = AttachAttributes {
        target_fd: cgroup.as_raw_fd().cast_unsigned(),
        program_fd: program.as_raw_fd().cast_unsigned(),
        attach_type: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // SAFETY: the kernel reads the attributes, alive for the call, within the length given.
    let result = unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_ATTACH, &raw const attributes, size_of::<AttachAttributes>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
