//! What a container may see and do.

use super::super::case::Case;

pub const CASES: &[Case] = &[
    Case::same(
        "read-only-root",
        r#"run --rm --read-only $BOX $ID sh -c 'exec 2>&1; touch /x; echo $?; touch /dev/shm/x; echo $?'"#,
        "touch: /x: Read-only file system\n1\n0",
    ),
    Case::same(
        "masked-and-read-only-paths",
        r#"run --rm $BOX $ID sh -c 'exec 2>&1; wc -c </proc/kcore; wc -c </proc/keys; ls /proc/acpi /sys/firmware; echo 1 >/proc/sys/kernel/panic; echo b >/proc/sysrq-trigger'; true"#,
        r"sh: can't open /proc/kcore: no such file
0
/proc/acpi:

/sys/firmware:
sh: can't create /proc/sys/kernel/panic: Read-only file system
sh: can't create /proc/sysrq-trigger: nonexistent directory",
    ),
    Case::same(
        "mounts",
        r#"run --rm $BOX $ID sh -c 'cut -d" " -f2- /proc/self/mounts' | grep -v '^/ ' | sed 's/^tmpfs /tmpfs /' | sort"#,
        r"/dev tmpfs rw,nosuid,size=65536k,mode=755 0 0
/dev/mqueue mqueue rw,nosuid,nodev,noexec,relatime 0 0
/dev/pts devpts rw,nosuid,noexec,relatime,gid=5,mode=620,ptmxmode=666 0 0
/dev/shm tmpfs rw,nosuid,nodev,noexec,relatime,size=65536k 0 0
/proc proc rw,nosuid,nodev,noexec,relatime 0 0
/proc/acpi tmpfs ro,relatime 0 0
/proc/bus proc ro,nosuid,nodev,noexec,relatime 0 0
/proc/fs proc ro,nosuid,nodev,noexec,relatime 0 0
/proc/interrupts tmpfs rw,nosuid,size=65536k,mode=755 0 0
/proc/irq proc ro,nosuid,nodev,noexec,relatime 0 0
/proc/keys tmpfs rw,nosuid,size=65536k,mode=755 0 0
/proc/sys proc ro,nosuid,nodev,noexec,relatime 0 0
/proc/timer_list tmpfs rw,nosuid,size=65536k,mode=755 0 0
/run tmpfs rw,nosuid,size=65536k,mode=755 0 0
/sys sysfs ro,nosuid,nodev,noexec,relatime 0 0
/sys/firmware tmpfs ro,relatime 0 0",
    ),
    Case::same(
        "devices-and-links-in-dev",
        r#"run --rm $BOX $ID sh -c 'cd /dev; ls -l | tail -n +2 | while read m l u g s t; do echo "$m $u $g ${t##*:?? }"; done; stat -c "%a %n" shm pts mqueue ptmx' | sort"#,
        r"1777 mqueue
1777 shm
755 pts
777 ptmx
crw-rw-rw- root root full
crw-rw-rw- root root null
crw-rw-rw- root root random
crw-rw-rw- root root tty
crw-rw-rw- root root urandom
crw-rw-rw- root root zero
drwxr-xr-x root root pts
drwxrwxrwt root root mqueue
drwxrwxrwt root root shm
lrwxrwxrwx root root fd -> /proc/self/fd
lrwxrwxrwx root root ptmx -> pts/ptmx
lrwxrwxrwx root root stderr -> /proc/self/fd/2
lrwxrwxrwx root root stdin -> /proc/self/fd/0
lrwxrwxrwx root root stdout -> /proc/self/fd/1",
    ),
    Case::same(
        "namespaces",
        r#"box sleep 100; for n in cgroup ipc mnt net pid user uts; do a=$(readlink /proc/self/ns/$n) b=$(readlink /proc/$(pid $ID)/ns/$n) c=$(x $ID $n readlink /proc/self/ns/$n); [ $a = $b ] && echo $n shared || echo $n own; [ $b = $c ] || echo exec in another $n; done"#,
        r"cgroup shared
ipc own
mnt own
net own
pid own
user shared
uts own",
    ),
    Case::same(
        "no-new-privileges",
        r#"run --rm $BOX $ID grep NoNewPrivs /proc/self/status; run --rm --allow-new-privs $BOX $ID grep NoNewPrivs /proc/self/status"#,
        "NoNewPrivs:\t1\nNoNewPrivs:\t0",
    ),
    Case::same(
        "capabilities",
        r#"run --rm $BOX $ID grep Cap /proc/self/status; run --rm --cap-add CAP_SYS_TIME --cap-drop CAP_CHOWN $BOX $ID grep Cap /proc/self/status; run --rm --user 1000 $BOX $ID grep Cap /proc/self/status"#,
        r"CapInh:	0000000000000000
CapPrm:	00000000a80425fb
CapEff:	00000000a80425fb
CapBnd:	00000000a80425fb
CapAmb:	0000000000000000
CapInh:	0000000000000000
CapPrm:	00000000aa0425fa
CapEff:	00000000aa0425fa
CapBnd:	00000000aa0425fa
CapAmb:	0000000000000000
CapInh:	0000000000000000
CapPrm:	0000000000000000
CapEff:	0000000000000000
CapBnd:	00000000a80425fb
CapAmb:	0000000000000000",
    ),
    Case::same(
        "privileged",
        r#"run --rm --privileged $BOX $ID sh -c 'grep Cap /proc/self/status; test -e /dev/fuse && echo devices; touch /proc/sys/kernel/panic && echo writable'"#,
        r"CapInh:	0000000000000000
CapPrm:	000001fffeffffff
CapEff:	000001fffeffffff
CapBnd:	000001fffeffffff
CapAmb:	0000000000000000
devices
writable",
    ),
    Case::same(
        "seccomp",
        r#"run --rm --seccomp $BOX $ID sh -c 'exec 2>&1; grep Seccomp: /proc/self/status; unshare -U true; echo $?'
        echo '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":38}]}' >profile
        run --rm --seccomp --seccomp-profile profile $BOX $ID sh -c 'exec 2>&1; mkdir /x; echo $?'
        run --rm --seccomp --allow-new-privs $BOX $ID grep -E 'Seccomp:|NoNew' /proc/self/status"#,
        r"Seccomp:	2
unshare: unshare(0x10000000): Operation not permitted
1
mkdir: can't create directory '/x': Function not implemented
1
NoNewPrivs:	0
Seccomp:	2",
    ),
    Case::same(
        "devices",
        r#"run --rm --device /dev/fuse $BOX $ID sh -c 'exec 2>&1; stat -c "%A %t:%T" /dev/fuse; mknod /dev/null2 c 1 3; echo x >/dev/null2; echo $?; mknod /dev/kmsg2 c 1 11; cat /dev/kmsg2 | head -c1; mknod /dev/sda b 8 0; head -c1 /dev/sda'; true"#,
        r"crw------- a:e5
0
cat: can't open '/dev/kmsg2': Operation not permitted
head: /dev/sda: Operation not permitted",
    ),
    Case::same(
        "bind-mounts",
        r#"mkdir d; echo data >d/f; run --rm --mount type=bind,src=$DIR/d,dst=/m,options=rbind:ro $BOX $ID sh -c 'exec 2>&1; cat /m/f; touch /m/x'; run --rm --mount type=bind,src=$DIR/d,dst=/a/new/place,options=rbind:rw $BOX $ID sh -c 'echo more >/a/new/place/g'; cat d/g; run --rm --mount type=bind,src=$DIR/d/f,dst=/etc/file,options=bind:ro $BOX $ID cat /etc/file; fails 'no such file' run --rm --mount type=bind,src=$DIR/nope,dst=/m,options=rbind $BOX $ID true"#,
        r"data
touch: /m/x: Read-only file system
more
data
fails: no such file",
    ),
    Case::same(
        "tmpfs-mounts",
        r#"run --rm --mount type=tmpfs,src=tmpfs,dst=/t,options=size=1m:mode=1777:noexec $BOX $ID sh -c 'grep " /t " /proc/mounts; stat -c %a /t; dd if=/dev/zero of=/t/x bs=1k count=2000 2>&1 | tail -1; ls -l /t/x | tr -s " " | cut -d" " -f5'"#,
        r"tmpfs /t tmpfs rw,noexec,relatime,size=1024k 0 0
1777
1024+0 records out
1048576",
    ),
    Case::same(
        "host-name",
        r#"run --rm --hostname frozen $BOX $ID hostname"#,
        "frozen",
    ),
    Case::same(
        "host-network",
        r#"a=$(readlink /proc/self/ns/net); b=$(run --rm --net-host $BOX $ID readlink /proc/self/ns/net); [ $a = $b ] && echo shared; run --rm $BOX $ID ls /sys/class/net"#,
        "shared\nlo",
    ),
    Case::same(
        "umask-and-signals-as-usual",
        r#"run --rm $BOX $ID sh -c 'umask; grep -E "Sig(Blk|Ign|Cgt)|ShdPnd|Threads" /proc/self/status; ls /proc/self/fd | wc -l; cat /proc/self/oom_score_adj; ps -o ppid,pgid,sid,comm | head -3'; box sleep 100; x $ID e sh -c 'umask; grep -E "Sig(Blk|Ign)" /proc/self/status; ls /proc/self/fd | wc -l; cat /proc/self/oom_score_adj'"#,
        r"0022
Threads:	1
ShdPnd:	0000000000000000
SigBlk:	0000000000000000
SigIgn:	0000000000000000
SigCgt:	0000000000000000
4
1
PPID  PGID  SID   COMMAND
    0     1     1 sh
    1     1     1 ps
0022
SigBlk:	0000000000000000
SigIgn:	0000000000000000
4
1",
    ),
    Case::same(
        "users-and-groups",
        r#"run --rm --user 1000:1001 $BOX $ID id; run --rm --user nobody $BOX $ID sh -c 'id; echo $HOME'; fails 'nobody2|no users' run --rm --user nobody2 $BOX $ID true"#,
        r"uid=1000 gid=1001 groups=1001
uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)
/
fails: nobody2|no users",
    ),
];
