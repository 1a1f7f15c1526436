//! User namespaces, and process namespaces shared with others.

use super::super::case::Case;

pub const CASES: &[Case] = &[
    Case::same(
        "a-user-namespace",
        r#"start --uidmap 0:100000:65536 --gidmap 0:200000:65536 $BOX $ID sleep 100
        cat /proc/$(pid $ID)/uid_map /proc/$(pid $ID)/gid_map | tr -s ' '; grep -E 'Uid|Gid' /proc/$(pid $ID)/status
        run --rm --uidmap 0:100000:65536 --gidmap 0:200000:65536 $BOX $ID-2 sh -c 'id; echo x >/dev/stdout; stat -c %u:%g /proc/1 /dev/null; hostname x 2>/dev/null || echo not so'"#,
        r"0 100000 65536
 0 200000 65536
Uid:	100000	100000	100000	100000
Gid:	200000	200000	200000	200000
uid=0(root) gid=0(root) groups=0(root)
x
0:0
65534:65534
not so",
    ),
    Case::same(
        "exec-is-inside-the-user-namespace",
        r#"start --uidmap 0:100000:65536 --gidmap 0:200000:65536 $BOX $ID sleep 100
        inside=$(readlink /proc/$(pid $ID)/ns/user); [ $inside = $(readlink /proc/self/ns/user) ] && echo no namespace
        [ $inside = $(x $ID e readlink /proc/self/ns/user) ] && echo inside
        x $ID f sh -c 'id -u; cat /proc/self/uid_map; touch /tmp/made; echo x >/dev/stdout; grep CapEff /proc/self/status' | tr -s ' '; stat -c %u:%g /proc/$(pid $ID)/root/tmp/made
        ctr t exec -d --exec-id g $ID sleep 4711; mine() { for p in $(pgrep -x -f 'sleep 4711'); do [ "$(readlink /proc/$p/ns/user)" = $inside ] && echo $p; done; }
        until [ -n "$(mine)" ]; do sleep 0.02; done; grep Uid /proc/$(mine)/status"#,
        r"inside
0
 0 100000 65536
x
CapEff:	00000000a80425fb
100000:200000
Uid:	100000	100000	100000	100000",
    ),
    Case::same(
        "exec-with-a-terminal-in-a-user-namespace",
        r#"start --uidmap 0:100000:65536 --gidmap 0:200000:65536 $BOX $ID sleep 100
        terminal 80x24 ctr t exec -t --exec-id e $ID sh -c 'tty; stat -c %u $(tty); id -u; sleep 0.5' | tr -d '\r'"#,
        "/dev/pts/0\n0\n0",
    ),
    Case::same(
        "a-terminal-in-a-user-namespace",
        r#"terminal 80x24 ctr run --rm -t --runtime $RT --uidmap 0:100000:65536 --gidmap 0:200000:65536 $BOX $ID sh -c 'tty; id -u; sleep 0.5' | tr -d '\r'"#,
        "/dev/pts/0\n0",
    ),
    Case::same(
        "a-rootfs-with-shifted-owners",
        r#"run --rm --uidmap 0:100000:65536 --gidmap 0:200000:65536 --remap-labels $BOX $ID sh -c 'stat -c %u:%g / /bin /root; touch /root/x /etc/y && stat -c %u:%g /root/x'
        start --uidmap 0:100000:65536 --gidmap 0:200000:65536 --remap-labels $BOX $ID sleep 100; x $ID e stat -c %u:%g /root; kill_and_rm $ID"#,
        "0:0\n0:0\n0:0\n0:0\n0:0",
    ),
    Case::same(
        "user-namespaces-with-seccomp-and-limits",
        r#"start --seccomp --memory-limit 30000000 --uidmap 0:100000:65536 --gidmap 0:200000:65536 $BOX $ID sleep 100; cat /sys/fs/cgroup/memory/default/$ID/memory.limit_in_bytes; x $ID e grep Seccomp: /proc/self/status; rpc pids $ID"#,
        "29999104\nSeccomp:\t2\n1",
    ),
    Case::same(
        "a-process-namespace-of-another-container",
        r#"box sh -c 'trap : TERM; while :; do sleep 0.1; done'; start --with-ns pid:/proc/$(pid $ID)/ns/pid $BOX $ID-2 sh -c 'sleep 4321 & sleep 0.5; ps -o args | grep -c "[s]leep 4321"'
        await_status $ID-2 STOPPED; sleep 0.2; ps -eo args | grep -c '^sleep 4321$'; status $ID; ctr t rm $ID-2; status $ID"#,
        "0\nRUNNING\nRUNNING",
    ),
    Case::same(
        "the-hosts-process-namespace",
        r#"start --with-ns pid:/proc/self/ns/pid $BOX $ID sh -c 'sleep 111 & sleep 112 & sleep 0.3; exit 4'; rpc wait $ID; sleep 0.2; ps -eo args | grep -c '^sleep 11[12]$'; true"#,
        "4\n0",
    ),
    Case::same(
        "exec-survives-nothing-in-the-hosts-process-namespace",
        r#"start --with-ns pid:/proc/self/ns/pid $BOX $ID sleep 100; x $ID e sleep 113 & await "ctr t ps $ID | grep -q exec_id"; sleep 0.2; ctr t kill -s 9 $ID; wait $!; echo $?; await_status $ID STOPPED; ps -eo args | grep -c '^sleep 113$'; true"#,
        "137\n0",
    ),
    Case::same(
        "a-network-namespace-of-ones-own",
        r#"ip netns add $ID; ip -n $ID link set lo up; ip -n $ID addr add 10.9.8.7/32 dev lo; run --rm --with-ns network:/run/netns/$ID $BOX $ID ip -4 -o addr show | grep -o 10.9.8.7; ip netns del $ID; umount /run/netns; rmdir /run/netns"#,
        "10.9.8.7",
    ),
];
