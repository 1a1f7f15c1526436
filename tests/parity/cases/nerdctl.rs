//! The same through nerdctl.

use super::super::case::Case;

pub const CASES: &[Case] = &[
    Case::same(
        "nerdctl-run",
        r#"try nerdctl run --rm --runtime $RT --net none busybox sh -c 'echo hi; echo err >&2; exit 3' 2>err; grep -v '^time=' err; (sleep 1.5; echo data) | nerdctl run -i --rm --runtime $RT --net none busybox cat"#,
        "hi\nstatus 3\nerr\ndata",
    ),
    Case::same(
        "nerdctl-in-the-background",
        r#"n=n${ID%%x*}; nerdctl run -d --name $n --runtime $RT --net none busybox sh -c 'echo log; trap "echo bye; exit 5" TERM; while :; do sleep 0.05; done' >/dev/null
        await "nerdctl logs $n 2>/dev/null | grep -q log"; nerdctl logs $n; nerdctl exec $n echo exec; nerdctl exec -w /usr -e A=b $n sh -c 'pwd; echo $A'; nerdctl exec $n sh -c 'exit 9' 2>/dev/null; echo $?
        nerdctl stop -t 5 $n >/dev/null; nerdctl inspect -f '{{.State.Status}} {{.State.ExitCode}}' $n; nerdctl logs $n; nerdctl start $n >/dev/null; nerdctl kill $n >/dev/null; await "nerdctl inspect -f '{{.State.Status}}' $n | grep -q exited"; nerdctl inspect -f '{{.State.ExitCode}}' $n; nerdctl rm $n >/dev/null; echo $?"#,
        "log\nexec\n/usr\nb\n1\nexited 5\nlog\nbye\n137\n0",
    ),
    Case::same(
        "nerdctl-limits-and-update",
        r#"n=n${ID%%x*}; nerdctl run -d --name $n --runtime $RT --net none --memory 32m --pids-limit 50 --cpu-shares 300 busybox sleep 100 >/dev/null
        cg=$(awk -F: '$2 == "memory" { print $3 }' /proc/$(nerdctl inspect -f '{{.State.Pid}}' $n)/cgroup); cd /sys/fs/cgroup; cat memory/$cg/memory.limit_in_bytes pids/$cg/pids.max cpu/$cg/cpu.shares
        nerdctl update --memory 64m --cpu-shares 200 $n >/dev/null; cat memory/$cg/memory.limit_in_bytes cpu/$cg/cpu.shares; nerdctl pause $n >/dev/null; nerdctl inspect -f '{{.State.Status}}' $n; nerdctl unpause $n >/dev/null; nerdctl rm -f $n >/dev/null; echo $?"#,
        "33554432\n50\n300\n67108864\n200\npaused\n0",
    ),
    Case::same(
        "nerdctl-terminal-and-init",
        r#"terminal 80x24 nerdctl run -it --rm --runtime $RT --net none busybox sh -c 'tty; exit 4' | tr -d '\r'; echo ${PIPESTATUS[0]}; nerdctl run --rm --runtime $RT --net none --read-only --user 1000:1000 --cap-drop ALL --security-opt no-new-privileges --tmpfs /t --workdir /t busybox sh -c 'id -u; pwd; grep CapEff /proc/self/status; touch x && ls'"#,
        "/dev/pts/0\n4\n1000\n/t\nCapEff:\t0000000000000000\nx",
    ),
];
