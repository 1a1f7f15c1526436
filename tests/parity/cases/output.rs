//! What a program prints, and how it ends.

use super::super::case::Case;

pub const CASES: &[Case] = &[
    Case::same("echo", r#"try run --rm $BOX $ID echo hi"#, "hi\nstatus 0"),
    Case::same("false", r#"try run --rm $BOX $ID false"#, "status 1"),
    Case::same(
        "exit-codes",
        r#"for n in 0 2 42 126 255; do try run --rm $BOX $ID-$n sh -c "exit $n"; done"#,
        "status 0\nstatus 2\nstatus 42\nstatus 126\nstatus 255",
    ),
    Case::same(
        "killed-by-signals",
        r#"for s in KILL TERM SEGV; do
            run --rm $BOX $ID-$s sh -c "sh -c 'kill -$s \$\$'; echo \$?"
        done
        box sleep 100; ctr t kill -s KILL $ID; await_status $ID STOPPED; rpc state $ID"#,
        "137\n143\n139\nSTOPPED 137",
    ),
    Case::same(
        "a-missing-program",
        r#"fails 'not found' run --rm $BOX $ID nope; fails 'no such file' run --rm $BOX $ID /nope; ctr t ls -q | grep $ID"#,
        "fails: not found\nfails: no such file\n(the script: exit status: 1)",
    ),
    Case::same(
        "a-program-that-is-not-executable",
        r#"fails 'permission denied' run --rm $BOX $ID /etc/passwd"#,
        "fails: permission denied",
    ),
    Case::same(
        "a-directory-as-program",
        r#"fails 'permission denied|is a directory' run --rm $BOX $ID /etc"#,
        "fails: permission denied|is a directory",
    ),
    Case::same(
        "a-working-directory",
        r#"run --rm --cwd /usr/bin $BOX $ID pwd"#,
        "/usr/bin",
    ),
    Case::same(
        "a-working-directory-that-is-missing-is-made",
        r#"try run --rm --cwd /no/such $BOX $ID pwd"#,
        "/no/such\nstatus 0",
    ),
    Case::same(
        "environment",
        r#"run --rm --env A=1 --env B='two words' --env A=3 $BOX $ID env | sort"#,
        "A=3\nB=two words\nHOME=/root\nPATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    ),
    Case::same(
        "arguments-arrive-as-they-are",
        r#"run --rm $BOX $ID printf '<%s>\n' '' 'a b' '*' '$HOME' $'new\nline' é"#,
        "<>\n<a b>\n<*>\n<$HOME>\n<new\nline>\n<é>",
    ),
    Case::same(
        "ten-megabytes-arrive-whole",
        r#"run --rm $BOX $ID sh -c 'seq 1 1400000' >out; seq 1 1400000 | cmp - out && wc -c <out"#,
        "10088896",
    ),
    Case::same(
        "stderr-is-a-stream-of-its-own",
        r#"try run --rm $BOX $ID sh -c 'echo out; echo err >&2; exit 3' >out 2>err; cat out; echo; cat err"#,
        "out\nstatus 3\n\nerr",
    ),
];
