//! Limits, statistics, and running out of memory.

use super::super::case::Case;

pub const CASES: &[Case] = &[
    Case::same(
        "metrics-have-the-same-rows",
        r#"start --memory-limit 50000000 $BOX $ID sleep 100; ctr t metrics $ID | awk 'NF > 1 { print $1 }' | tail -n +2; ctr t metrics $ID | awk '/limit/ { print }' | tr -s ' '"#,
        r"ID
METRIC
memory.usage_in_bytes
memory.limit_in_bytes
memory.stat.cache
cpuacct.usage
cpuacct.usage_percpu
pids.current
pids.limit
memory.limit_in_bytes 49999872 
pids.limit 0",
    ),
    Case::same(
        "metrics-in-json-have-the-same-keys",
        r#"box sleep 100; ctr t metrics --format json $ID | jq -c '[paths(scalars) | map(select(type == "string")) | join(".")] | unique | map(select(test("memory.(rss|cache|usage)|pids|cpu.usage.(per|total)")))'"#,
        r#"["cpu.usage.per_cpu","cpu.usage.total","memory.rss","memory.usage.limit","memory.usage.max","memory.usage.usage","pids.current"]"#,
    ),
    Case::same(
        "metrics-count",
        r#"box sh -c 'while :; do :; done'; sleep 0.5; ctr t metrics --format json $ID | jq '(.cpu.usage.total > 100000000), (.memory.usage.usage > 100000), .pids.current'"#,
        "true\ntrue\n1",
    ),
    Case::same(
        "metrics-after-the-end",
        r#"box true; await_status $ID STOPPED; ctr t metrics $ID >/dev/null 2>&1; echo $?"#,
        "0",
    ),
    Case::same(
        "a-memory-limit",
        r#"start --memory-limit 30000000 $BOX $ID sleep 100; cat /sys/fs/cgroup/memory/default/$ID/memory.limit_in_bytes; start --memory-limit 30000000 $BOX $ID-2 sh -c 'dd if=/dev/zero of=/dev/null bs=200M count=1'; rpc wait $ID-2; await "grep -q '/tasks/oom.*$ID-2' $EVENTS" && echo told"#,
        "29999104\n137\ntold",
    ),
    Case::same(
        "out-of-memory-beside-init",
        r#"start --memory-limit 30000000 $BOX $ID sleep 100; x $ID e dd if=/dev/zero of=/dev/null bs=200M count=1; echo $?; status $ID; await "grep -q '/tasks/oom.*$ID' $EVENTS""#,
        "137\nRUNNING",
    )
    .unordered(),
    Case::same(
        "cpu-limits",
        r#"start --cpus 0.5 --cpu-shares 512 $BOX $ID sleep 100; cd /sys/fs/cgroup/cpu/default/$ID; cat cpu.cfs_quota_us cpu.cfs_period_us cpu.shares"#,
        "50000\n100000\n512",
    ),
    Case::same(
        "cpusets",
        r#"start --cpuset-cpus 0 --cpuset-mems 0 $BOX $ID sleep 100; cat /sys/fs/cgroup/cpuset/default/$ID/cpuset.cpus; x $ID e grep Cpus_allowed_list /proc/self/status"#,
        "0\nCpus_allowed_list:\t0",
    ),
    Case::same(
        "update",
        r#"box sleep 100; rpc update $ID '{"memory":{"limit":40000000},"cpu":{"shares":256,"quota":20000,"period":100000},"pids":{"limit":7}}'; cd /sys/fs/cgroup; cat memory/default/$ID/memory.limit_in_bytes cpu/default/$ID/cpu.shares cpu/default/$ID/cpu.cfs_quota_us pids/default/$ID/pids.max"#,
        "39997440\n256\n20000\n7",
    ),
    Case::same(
        "update-leaves-the-rest",
        r#"start --memory-limit 30000000 --cpu-shares 512 $BOX $ID sleep 100; rpc update $ID '{"cpu":{"shares":300}}'; cd /sys/fs/cgroup; cat memory/default/$ID/memory.limit_in_bytes cpu/default/$ID/cpu.shares; x $ID e sh -c 'echo still; test -w /dev/null && echo devices'"#,
        "29999104\n300\nstill\ndevices",
    ),
    Case::same(
        "update-with-nonsense",
        r#"box sleep 100; fails '.' rpc update $ID '{"memory":{"limit":"much"}}'; fails '.' rpc update $ID 'nonsense'; status $ID"#,
        "fails: .\nfails: .\nRUNNING",
    ),
    Case::same(
        "a-limit-on-processes",
        r#"box sleep 100; rpc update $ID '{"pids":{"limit":20}}'; x $ID e sh -c 'for n in $(seq 30); do sleep 2 & done; echo made' 2>&1 | grep -o "can.t fork""#,
        "can't fork",
    ),
    Case::same(
        "rlimits",
        r#"start --rlimit-nofile 123:456 $BOX $ID sleep 100; grep 'open files' /proc/$(pid $ID)/limits | tr -s ' '; x $ID e sh -c 'ulimit -n; ulimit -Hn'"#,
        "Max open files 123 456 files \n123\n456",
    ),
    Case::same(
        "a-cgroup-path-of-ones-own",
        r#"start --cgroup /$ID/deep/down $BOX $ID sleep 100; grep memory /proc/$(pid $ID)/cgroup | cut -d: -f3; x $ID e grep memory /proc/self/cgroup | cut -d: -f3; kill_and_rm $ID; ls -d /sys/fs/cgroup/memory/$ID/deep/down 2>/dev/null; rmdir /sys/fs/cgroup/*/$ID/deep /sys/fs/cgroup/*/$ID 2>/dev/null; true"#,
        "/ID/deep/down\n/ID/deep/down",
    ),
];
