//! Device rules on cgroup v2, where the kernel has no files for them: a small
//! BPF program on the cgroup answers each access.
//!
//! Rules are read as v1 reads them: later ones win, one of type `a` forgets
//! all before it. Each wanted right (read, write, mknod) is decided by the
//! last rule that speaks of it; the access passes when all rights do.
//! Kernel: `Documentation/bpf/`, `struct bpf_cgroup_dev_ctx` in `linux/bpf.h`.

use std::fs::File;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

use super::layout::Mode;
use super::paths::Cgroup;
use crate::error::{Error, ErrorKind, IoContext, Result};
use crate::sys::{self, BpfInstruction};

/// Rights as the kernel numbers them (`BPF_DEVCG_ACC_*`).
const MKNOD: u8 = 1;
const READ: u8 = 2;
const WRITE: u8 = 4;
/// Kinds of device as the kernel numbers them (`BPF_DEVCG_DEV_*`).
const BLOCK: u8 = 1;
const CHARACTER: u8 = 2;

/// What every container may use, whatever its rules say: all runtimes do so.
/// (major, minor), character devices with all rights; `None` is any minor.
const ALWAYS: [(i64, Option<i64>); 9] = [
    (1, Some(3)), // null
    (1, Some(5)), // zero
    (1, Some(7)), // full
    (1, Some(8)), // random
    (1, Some(9)), // urandom
    (5, Some(0)), // tty
    (5, Some(1)), // console
    (5, Some(2)), // ptmx
    (136, None),  // pseudo terminals
];

/// One rule; `None` in a number is any.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: u8,
    major: Option<u32>,
    minor: Option<u32>,
    rights: u8,
}

/// What the rules come down to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Policy {
    /// For rights that no rule speaks of.
    otherwise: bool,
    /// In the order given: the last that matches counts.
    rules: Vec<Rule>,
}

impl Cgroup {
    /// Puts the resources' device rules into force. On v1 they are among the
    /// limits already; on v2 libcgroups, as it is built here, leaves them out.
    ///
    /// Nothing to do when the resources have no device rules: those in force stay.
    pub fn restrict_devices(&self, resources: &LinuxResources) -> Result<()> {
        let rules = resources.devices().as_deref().unwrap_or_default();
        if self.mode == Mode::V1 || rules.is_empty() {
            return Ok(());
        }
        let dir = self.dirs.first().ok_or_else(|| self.gone())?;
        let file = File::open(&dir.path).context(|| format!("open {}", dir.path.display()))?;
        replace(&file, &Policy::of(rules)?)
            .map_err(|error| error.within(format!("restrict devices of cgroup {}", self.name())))
    }
}

/// The new program works before the old ones go: no access slips through.
fn replace(cgroup: &File, policy: &Policy) -> Result<()> {
    let old = sys::bpf_device_programs(cgroup).context(|| "list BPF programs")?;
    let unrestricted = policy.otherwise && policy.rules.iter().all(|rule| rule.allow);
    if !unrestricted {
        let program =
            sys::bpf_load_device_program(&policy.program()).context(|| "load a BPF program")?;
        sys::bpf_attach_device_program(cgroup, &program).context(|| "attach a BPF program")?;
    }
    for program in old {
        sys::bpf_detach_device_program(cgroup, &program).context(|| "detach a BPF program")?;
    }
    Ok(())
}

impl Policy {
    fn of(rules: &[LinuxDeviceCgroup]) -> Result<Policy> {
        let mut policy = Policy {
            otherwise: true,
            rules: Vec::new(),
        };
        for rule in rules {
            policy.add(rule)?;
        }
        policy.rules.extend([BLOCK, CHARACTER].map(|kind| Rule {
            allow: true,
            kind,
            major: None,
            minor: None,
            rights: MKNOD,
        }));
        for (major, minor) in ALWAYS {
            policy.rules.push(Rule {
                allow: true,
                kind: CHARACTER,
                major: number(Some(major))?,
                minor: number(minor)?,
                rights: MKNOD | READ | WRITE,
            });
        }
        Ok(policy)
    }

    fn add(&mut self, rule: &LinuxDeviceCgroup) -> Result<()> {
        let kind = match rule.typ().unwrap_or_default() {
            LinuxDeviceType::A => {
                self.otherwise = rule.allow();
                self.rules.clear();
                return Ok(());
            }
            LinuxDeviceType::B => BLOCK,
            LinuxDeviceType::C | LinuxDeviceType::U => CHARACTER,
            LinuxDeviceType::P => return Err(bad("pipes have no device rules")),
        };
        self.rules.push(Rule {
            allow: rule.allow(),
            kind,
            major: number(rule.major())?,
            minor: number(rule.minor())?,
            rights: rights(rule.access().as_deref().unwrap_or_default())?,
        });
        Ok(())
    }

    /// Register 1 points at the access: kind and rights, major, minor. Register
    /// 2 holds the kind, 3 the rights not yet granted, 4 and 5 the numbers.
    fn program(&self) -> Vec<BpfInstruction> {
        use bpf::*;
        let mut code = vec![
            load(2, 1, 0),
            copy(3, 2),
            and(2, 0xffff),
            shift_right(3, 16),
            load(4, 1, 4),
            load(5, 1, 8),
        ];
        for rule in self.rules.iter().rev() {
            code.extend(rule.instructions());
        }
        code.extend([set(0, i32::from(self.otherwise)), exit()]);
        code
    }
}

impl Rule {
    /// The tests it begins with jump over all of it when it does not match.
    fn instructions(&self) -> Vec<BpfInstruction> {
        use bpf::*;
        let mut tests = vec![(2, u32::from(self.kind))];
        tests.extend(self.major.map(|major| (4, major)));
        tests.extend(self.minor.map(|minor| (5, minor)));
        let rights = i32::from(self.rights);
        let verdict = if self.allow {
            // Granted are the rule's rights; with none left to grant, it passes.
            vec![and(3, !rights), skip_if_not(3, 0, 2), set(0, 1), exit()]
        } else {
            vec![
                copy(6, 3),
                and(6, rights),
                skip_if(6, 0, 2),
                set(0, 0),
                exit(),
            ]
        };
        let length = tests.len() + verdict.len();
        let tests = tests
            .into_iter()
            .enumerate()
            .map(|(at, (register, wanted))| {
                // A rule has at most eight instructions.
                let rest = (length - at - 1) as i16;
                skip_if_not(register, wanted as i32, rest)
            });
        tests.chain(verdict).collect()
    }
}

/// The few instructions used, on 32-bit values (`linux/bpf.h`, `bpf_common.h`).
mod bpf {
    use crate::sys::BpfInstruction;

    const fn instruction(code: u8, to: u8, from: u8, offset: i16, value: i32) -> BpfInstruction {
        BpfInstruction {
            code,
            registers: from << 4 | to,
            offset,
            value,
        }
    }
    /// to = *(u32 *)(from + offset)
    pub(super) const fn load(to: u8, from: u8, offset: i16) -> BpfInstruction {
        instruction(0x61, to, from, offset, 0)
    }
    pub(super) const fn copy(to: u8, from: u8) -> BpfInstruction {
        instruction(0xbc, to, from, 0, 0)
    }
    pub(super) const fn set(to: u8, value: i32) -> BpfInstruction {
        instruction(0xb4, to, 0, 0, value)
    }
    pub(super) const fn and(to: u8, value: i32) -> BpfInstruction {
        instruction(0x54, to, 0, 0, value)
    }
    pub(super) const fn shift_right(to: u8, bits: i32) -> BpfInstruction {
        instruction(0x74, to, 0, 0, bits)
    }
    /// Skips the next `count` instructions when the register is `value`.
    pub(super) const fn skip_if(register: u8, value: i32, count: i16) -> BpfInstruction {
        instruction(0x16, register, 0, count, value)
    }
    pub(super) const fn skip_if_not(register: u8, value: i32, count: i16) -> BpfInstruction {
        instruction(0x56, register, 0, count, value)
    }
    /// Returns register 0: 1 allows, 0 refuses with EPERM.
    pub(super) const fn exit() -> BpfInstruction {
        instruction(0x95, 0, 0, 0, 0)
    }
}

/// A device number; absent or -1 means any.
fn number(number: Option<i64>) -> Result<Option<u32>> {
    match number {
        None | Some(-1) => Ok(None),
        Some(n) => u32::try_from(n)
            .map(Some)
            .map_err(|_| bad(&format!("{n} is no device number"))),
    }
}

fn rights(access: &str) -> Result<u8> {
    access.chars().try_fold(0, |rights, c| match c {
        'm' => Ok(rights | MKNOD),
        'r' => Ok(rights | READ),
        'w' => Ok(rights | WRITE),
        _ => Err(bad(&format!("access {access:?} is not made of r, w and m"))),
    })
}

fn bad(what: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, format!("device rule: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> Policy {
        let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
        Policy::of(&rules).unwrap()
    }

    /// Runs a program as the kernel would, on the instructions used here.
    fn ask(policy: &Policy, kind: u8, rights: u8, major: u32, minor: u32) -> bool {
        let access = [u32::from(kind) | u32::from(rights) << 16, major, minor];
        let program = policy.program();
        let mut r = [0_u32; 11];
        let mut at = 0;
        loop {
            let i = &program[at];
            let (to, from) = (usize::from(i.registers & 15), usize::from(i.registers >> 4));
            let value = i.value as u32;
            at += 1;
            let mut skip = |condition: bool| {
                if condition {
                    at += usize::try_from(i.offset).unwrap();
                }
            };
            match i.code {
                0x61 => r[to] = access[usize::try_from(i.offset).unwrap() / 4],
                0xbc => r[to] = r[from],
                0xb4 => r[to] = value,
                0x54 => r[to] &= value,
                0x74 => r[to] >>= value,
                0x16 => skip(r[to] == value),
                0x56 => skip(r[to] != value),
                0x95 => return r[0] == 1,
                code => panic!("instruction {code:#x}"),
            }
        }
    }

    #[test]
    fn deny_all_but_a_few() {
        let policy = policy(
            r#"[{"allow":false,"access":"rwm"},
                {"allow":true,"type":"c","major":10,"minor":229,"access":"rwm"},
                {"allow":true,"type":"b","major":8,"access":"r"},
                {"allow":true,"type":"c","major":10,"minor":1,"access":"r"},
                {"allow":true,"type":"c","major":10,"minor":1,"access":"w"}]"#,
        );
        assert!(ask(&policy, CHARACTER, READ | WRITE, 10, 229));
        assert!(!ask(&policy, BLOCK, READ | WRITE, 10, 229));
        assert!(ask(&policy, BLOCK, READ, 8, 17));
        assert!(!ask(&policy, BLOCK, READ | WRITE, 8, 17));
        assert!(ask(&policy, BLOCK, MKNOD, 9, 9));
        assert!(ask(&policy, CHARACTER, READ | WRITE, 10, 1));
        assert!(!ask(&policy, CHARACTER, READ, 10, 2));
        assert!(ask(&policy, CHARACTER, READ | WRITE, 1, 3));
        assert!(ask(&policy, CHARACTER, WRITE, 136, 44));
    }

    #[test]
    fn the_last_rule_counts_and_all_forgets() {
        let some = policy(
            r#"[{"allow":true,"type":"c","major":10,"access":"rwm"},
                {"allow":false,"type":"c","major":10,"minor":200,"access":"w"}]"#,
        );
        assert!(ask(&some, CHARACTER, READ, 10, 200));
        assert!(!ask(&some, CHARACTER, READ | WRITE, 10, 200));
        assert!(ask(&some, CHARACTER, READ | WRITE, 10, 201));
        let all = policy(
            r#"[{"allow":false,"type":"c","major":10,"access":"rwm"},
                {"allow":true,"type":"a","access":"rwm"}]"#,
        );
        assert!(ask(&all, CHARACTER, READ | WRITE, 10, 200));
    }

    #[test]
    fn nonsense_is_refused() {
        for json in [
            r#"[{"allow":true,"type":"c","major":-2,"access":"r"}]"#,
            r#"[{"allow":true,"type":"c","major":99999999999,"access":"r"}]"#,
            r#"[{"allow":true,"type":"c","access":"x"}]"#,
            r#"[{"allow":true,"type":"p","access":"r"}]"#,
        ] {
            let rules: Vec<LinuxDeviceCgroup> = serde_json::from_str(json).unwrap();
            let error = Policy::of(&rules).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{json}");
        }
    }
}
