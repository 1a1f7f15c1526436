//! What only a spec of one's own can say: hooks, annotations, odd values.
//!
//! `with_spec JQ` is `run --rm` of busybox with a spec changed by jq.

use super::super::case::Case;

pub const CASES: &[Case] = &[
    Case::same(
        "hooks",
        r#"cat >hook <<'END'
#!/bin/sh
cd "${0%/*}"; state=$(cat); echo "$1 $(echo $state | jq -r '"\(.status) \(.pid != null and .pid != 0) \(.bundle | split("/") | last)"') $A" >>log
END
        chmod +x hook
        hooks=$(for h in prestart createRuntime poststart poststop; do echo "{\"$h\":[{\"path\":\"$DIR/hook\",\"args\":[\"hook\",\"$h\"],\"env\":[\"PATH=$PATH\",\"A=b\"]}]}"; done | jq -s add)
        with_spec ".hooks = $hooks" sh -c 'echo run' >out; cat log out"#,
        "prestart creating true ID b\ncreateRuntime creating true ID b\npoststart created true ID b\npoststop stopped false ID b\nrun",
    )
    .ours(
        "runc 1.1 runs poststart hooks when it creates; OCI has them run after the start",
        "prestart creating true ID b\ncreateRuntime creating true ID b\npoststart running true ID b\npoststop stopped false ID b\nrun",
    ),
    Case::same(
        "hooks-in-the-container",
        r#"with_spec '.hooks = {createContainer:[{path:"/bin/sh",args:["sh","-c","echo create >'$DIR'/log"]}],startContainer:[{path:"/bin/sh",args:["sh","-c","echo start $PATH >/tmp/log"]}]}' sh -c 'cat /tmp/log'; cat log"#,
        "start /bin:/usr/bin\ncreate",
    ),
    Case::same(
        "a-hook-that-fails",
        r#"for h in prestart createRuntime poststart poststop; do with_spec ".hooks.$h = [{path:\"/bin/false\"}]" echo ran >out 2>&1; echo $h $?; done; grep -c ran out; status $ID"#,
        "prestart 1\ncreateRuntime 1\npoststart 1\npoststop 0\n1",
    )
    .ours(
        "runc 1.1 runs poststart hooks when it creates: it has no task yet that could fail",
        "prestart 1\ncreateRuntime 1\npoststart 1\npoststop 0\n1",
    )
    .other_events(),
    Case::same(
        "a-hook-that-takes-too-long",
        r#"before=$SECONDS; with_spec '.hooks.createRuntime = [{path:"/bin/sleep",args:["sleep","30"],timeout:1}]' true >/dev/null 2>&1; echo $?; [ $((SECONDS - before)) -lt 10 ] && echo soon"#,
        "1\nsoon",
    ),
    Case::same(
        "masked-files-and-folders-of-ones-own",
        r#"with_spec '.linux.maskedPaths += ["/etc/passwd","/root","/nope"] | .linux.readonlyPaths += ["/tmp","/nope"]' sh -c 'exec 2>&1; wc -c </etc/passwd; ls -a /root | wc -l; touch /root/x; touch /tmp/x; touch /etc/x && echo made'"#,
        r"0
2
touch: /root/x: Read-only file system
touch: /tmp/x: Read-only file system
made",
    ),
    Case::same(
        "a-umask-and-more-groups",
        r#"with_spec '.process.user = {uid:1000,gid:1000,umask:7,additionalGids:[5,10]}' sh -c 'umask; id -G'"#,
        "0007\n1000 5 10",
    ),
    Case::same(
        "sysctls",
        r#"with_spec '.linux.sysctl = {"net.ipv4.ip_forward":"1","kernel.domainname":"example"}' cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/domainname"#,
        "1\nexample",
    ),
    Case::same(
        "more-rlimits",
        r#"with_spec '.process.rlimits = [{type:"RLIMIT_NPROC",soft:50,hard:60},{type:"RLIMIT_CORE",soft:0,hard:0}]' sh -c 'grep -E "processes|core" /proc/self/limits | tr -s " "'"#,
        "Max core file size 0 0 bytes \nMax processes 50 60 processes",
    ),
    Case::same(
        "an-out-of-memory-score",
        r#"with_spec '.process.oomScoreAdj = 500' cat /proc/self/oom_score_adj"#,
        "500",
    ),
    Case::same(
        "root-propagation-and-shared-mounts",
        r#"with_spec '.linux.rootfsPropagation = "slave" | .mounts += [{destination:"/m",type:"bind",source:"'$DIR'",options:["rbind","rslave"]}]' sh -c 'grep -E " / | /m " /proc/self/mountinfo | grep -c master; true'"#,
        "0",
    ),
    Case::same(
        "a-cgroup-namespace",
        r#"with_spec '.linux.namespaces += [{type:"cgroup"}]' sh -c 'grep -E "memory|pids" /proc/self/cgroup | cut -d: -f3'"#,
        "/\n/",
    ),
    Case::same(
        "cgroups-mounted-in-the-container",
        r#"with_spec '.linux.namespaces += [{type:"cgroup"}] | .mounts += [{destination:"/sys/fs/cgroup",type:"cgroup",source:"cgroup",options:["ro","nosuid","noexec","nodev"]}]' sh -c 'cat /sys/fs/cgroup/pids/pids.current; ls /sys/fs/cgroup | sort | head -20'"#,
        r"2
blkio
cpu
cpuacct
cpuset
devices
freezer
memory
pids
systemd",
    ),
    Case::same(
        "devices-of-ones-own",
        r#"with_spec '.linux.devices += [{path:"/dev/mine",type:"c",major:1,minor:5,fileMode:438,uid:7,gid:8}] | .linux.resources.devices += [{allow:true,type:"c",major:1,minor:5,access:"rw"}]' sh -c 'stat -c "%a %u %g %t %T" /dev/mine; head -c 2 /dev/mine | wc -c'"#,
        "666 7 8 1 5\n2",
    ),
    Case::same(
        "a-seccomp-rule-that-kills",
        r#"with_spec '.linux.seccomp = {defaultAction:"SCMP_ACT_ALLOW",syscalls:[{names:["mkdir","mkdirat"],action:"SCMP_ACT_KILL_PROCESS"}]}' mkdir /x; echo $?"#,
        "159",
    ),
    Case::same(
        "no-namespaces-but-mount",
        r#"with_spec '.linux.namespaces = [{type:"mount"}] | del(.hostname) | .mounts = [.mounts[] | select(.type != "sysfs" and .type != "mqueue")]' sh -c 'readlink /proc/self/ns/pid' | sed "s/$(readlink /proc/self/ns/pid | tr -dc 0-9)/host/"; readlink /proc/self/ns/uts >/dev/null"#,
        "pid:[host]",
    ),
    Case::same(
        "a-relative-program-and-an-own-path",
        r#"with_spec '.process.env = ["PATH=/nowhere"] | .process.cwd = "/bin"' ./echo relative; with_spec '.process.env = ["A=b"]' /bin/env; fails 'executable file not found' with_spec '.process.env = ["A=b"]' env"#,
        "relative\nA=b\nHOME=/root\nfails: executable file not found",
    ),
    Case::same(
        "a-script-without-an-interpreter",
        r#"rootfs; printf 'echo hi\n' >root/script; chmod 700 root/script root/usr/bin/busybox; run --rm --rootfs $DIR/root $ID /script 2>&1; echo $?
        run --rm --rootfs $DIR/root $ID /bin/echo private; run --rm --rootfs --user 1000 $DIR/root $ID-2 /bin/echo private >out 2>&1; echo $?; grep -o 'permission denied' out; true"#,
        "exec /script: exec format error\n1\nprivate\n0",
    ),
    Case::same(
        "a-read-only-bundle-rootfs",
        r#"rootfs; run --rm --rootfs --read-only $DIR/root $ID /bin/touch /x 2>/dev/null; echo $?; ls root | head -3"#,
        "1\nbin\ndev\netc",
    ),
    Case::same(
        "a-nonsense-spec",
        r#"ctr run --runtime $RT --config <(echo '{}') $ID >out 2>&1; echo $?; ls /run/containerd/io.containerd.runtime.v2.task/default | grep -c $ID; true"#,
        "1\n0",
    ),
];
