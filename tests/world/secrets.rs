use std::collections::BTreeMap;

use worldshim::world::secrets::{FingerprintKey, Redactor, Rules, SecretsConfig};

fn redactor(config: &SecretsConfig) -> Redactor {
    Redactor::with_key(
        Rules::new(config).unwrap(),
        FingerprintKey::from_bytes([7; 32]),
    )
}

fn strings(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| text.to_string()).collect()
}

/// Tokens are put together here so that no scanner of source code takes them for real.
fn token(prefix: &str) -> String {
    format!(
        "{prefix}{}",
        "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7bC0eF3hJ6".get(..36).unwrap()
    )
}

#[test]
fn names_of_credentials() {
    let rules = Rules::new(&SecretsConfig::default()).unwrap();
    for name in [
        "STRIPE_KEY",
        "AWS_SECRET_ACCESS_KEY",
        "PGPASSWORD",
        "MYSQL_PWD",
        "MYSQL_ROOT_PASSWORD",
        "DB_PASS",
        "DATABASE_URL",
        "TEST_DATABASE_URL",
        "SENTRY_DSN",
        "GOOGLE_CREDENTIALS",
        "GITHUB_TOKEN",
        "TOKEN",
        "NPM_TOKEN_RO",
        "apiKey",
        "api-key",
        "client.secret",
        "SECRET",
        "SECRET_KEY_BASE",
        "ERLANG_COOKIE",
        "JWT_SECRET",
        "SSH_PRIVATE_KEY",
        "REDIS_AUTH",
        "STRIPE_KEY_LIVE",
        "API_KEY_2",
        "GPG_PASSPHRASE",
        "AZURE_STORAGE_CONNECTION_STRING",
        "SLACK_WEBHOOK_URL",
        "PROXY_AUTHORIZATION",
        "db_password",
        "WIFI_PSK",
        "PASSWORD_HASH_SALT",
        "VAULT_TOKEN",
        "DJANGO_SECRET_KEY",
        "KEYSTORE_PASSWD",
        "accessToken",
        "PASS",
        "MY_CREDS",
    ] {
        assert!(rules.is_secret(name.as_bytes(), b"some value"), "{name}");
    }
}

#[test]
fn names_that_only_look_like_it() {
    let rules = Rules::new(&SecretsConfig::default()).unwrap();
    for (name, value) in [
        ("PATH", "/usr/local/sbin:/usr/bin"),
        ("HOME", "/root"),
        ("PWD", "/app"),
        ("OLDPWD", "/"),
        ("KEYBOARD", "de"),
        ("XKB_KEYBOARD_KEY", "us"),
        ("KEYMAP", "qwertz"),
        ("SSH_AUTH_SOCK", "/run/agent.sock"),
        ("GPG_KEY", "A035C8C19219BA821ECEA86B64E628F8D684696D"),
        ("TOKENIZERS_PARALLELISM", "false"),
        ("MONKEY", "see"),
        ("TURKEY", "eat"),
        ("POSTGRES_PASSWORD_FILE", "/run/secrets/pg"),
        ("AWS_ACCESS_KEY_ID", "none"),
        ("SIGNING_PUBLIC_KEY", "abc"),
        ("PASSENGER_APP_ENV", "production"),
        ("COMPASS", "north"),
        ("API_KEY", ""),
        ("USE_TOKEN", "true"),
        ("REQUIRE_PASSWORD", "No"),
        ("MAX_TOKENS", "4096"),
        ("LS_COLORS", "*.tar=01;31:*.key=00;32:*.pem=00;36"),
        ("TERM", "xterm"),
        ("AUTHOR", "me"),
        ("LANG", "C.UTF-8"),
        ("HTTP_PROXY", "http://proxy.example:3128"),
        ("HOSTNAME", "a1b2c3"),
        ("URL", "https://example.org:8443/a?b=c"),
        ("MAIL", "mailto:a@example.org"),
        ("IMAGE", "docker.io/library/token:latest"),
        ("PYTHON_SHA256", "0d0f5b5b9b2d1f0a"),
        ("REDIS_URL", "redis://cache:6379/0"),
        ("DISK", "disk-0123456789abcdef0123456789"),
    ] {
        assert!(
            !rules.is_secret(name.as_bytes(), value.as_bytes()),
            "{name}={value}"
        );
    }
}

#[test]
fn values_betray_themselves_under_any_name() {
    let rules = Rules::new(&SecretsConfig::default()).unwrap();
    let mut values = strings(&[
        "postgres://user:pw@db/app",
        "redis://:pw@cache:6379/0",
        "amqps://u:p%40w@mq/",
        "mysql://root:p/a@ss@db/x",
        "http://proxy:secret@proxy.example:3128",
        "postgres://a/x postgres://u:p@b/y",
        "https://0123456789abcdef0123@github.example/x.git",
        "mongodb+srv://u:p@cluster.example/?retryWrites=true",
        "Server=db;User Id=sa;Password=hunter2;",
        "host=db password=hunter2 dbname=x",
        "{\"auth\":{\"token\":\"abc\"}}",
        "{\\\"password\\\": \\\"x\\\"}",
        "password: hunter2",
        "https://example.org/?api_key=abc",
        "-Djavax.net.ssl.keyStorePassword=changeit",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIE",
        "x\n-----BEGIN OPENSSH PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----",
    ]);
    for prefix in [
        "ghp_",
        "gho_",
        "github_pat_",
        "glpat-",
        "sk-",
        "sk-proj-",
        "sk-ant-api03-",
        "AIza",
        "npm_",
        "pypi-",
        "hf_",
        "AKIA",
        "ASIA",
        "eyJ",
        "dckr_pat_",
        "ya29.",
        "Bearer ghp_",
        "SG.",
        "sk_live_",
        "rk_test_",
        "whsec_",
        "xoxb-",
        "xoxp-",
        "tskey-",
        "hvs.",
    ] {
        values.push(token(prefix));
        values.push(format!("a=1,{}", token(prefix)));
    }
    for value in values {
        assert!(rules.is_secret(b"HARMLESS", value.as_bytes()), "{value}");
    }
    assert!(!rules.is_secret_value(b"-----BEGIN CERTIFICATE-----\nMIIE"));
    assert!(!rules.is_secret_value(b"-----BEGIN PUBLIC KEY-----\nMIIE"));
    assert!(
        rules.is_secret(b"X\xff_TOKEN", b"\xff\xfe"),
        "any bytes are looked at"
    );
}

#[test]
fn lists_of_the_host_add_and_allow() {
    let config = SecretsConfig {
        allow_names: strings(&["public_*", "API_KEY"]),
        deny_names: strings(&["ORDER_NUMBER", "*_plan"]),
        deny_values_prefixes: strings(&["corp-"]),
        ..SecretsConfig::default()
    };
    let rules = Rules::new(&config).unwrap();
    assert!(rules.is_secret(b"order_number", b"x") && rules.is_secret(b"WAR_PLAN", b"x"));
    assert!(rules.is_secret(b"X", b"corp-1"));
    assert!(!rules.is_secret(b"API_KEY", b"x") && !rules.is_secret(b"PUBLIC_TOKEN", b"x"));
    assert!(!rules.is_secret(b"PUBLIC_URL", b"redis://u:p@h"));
    assert!(rules.is_secret(b"OTHER_API_KEY", b"x"));
    for bad in [
        &mut config.clone().deny_names,
        &mut config.clone().allow_names,
    ] {
        bad.push("[".into());
    }
    let empty = SecretsConfig {
        deny_values_prefixes: strings(&[""]),
        ..SecretsConfig::default()
    };
    assert!(Rules::new(&empty).is_err());
}

#[test]
fn equal_values_get_equal_markers_and_only_names_are_listed() {
    let mut redactor = redactor(&SecretsConfig::default());
    let mut env = strings(&[
        "A_TOKEN=same",
        "PATH=/bin",
        "B_TOKEN=same",
        "C_TOKEN=other",
        "D_KEY=",
    ]);
    redactor.entries("spec.process.env", &mut env);
    let value = |entry: &str| entry.split_once('=').unwrap().1.to_string();
    assert!(value(&env[0]).starts_with("<redacted:hmac-sha256:"));
    assert_eq!(value(&env[0]), value(&env[2]));
    assert_ne!(value(&env[0]), value(&env[3]));
    assert_eq!(env[1], "PATH=/bin");
    assert_eq!(env[4], "D_KEY=");
    let found = redactor.found();
    let names: Vec<_> = found.iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["A_TOKEN", "B_TOKEN", "C_TOKEN"]);
    assert!(!serde_json::to_string(&found).unwrap().contains("same"));
}

#[test]
fn arguments_are_looked_at_in_all_their_forms() {
    let mut redactor = redactor(&SecretsConfig::default());
    let mut args = strings(&[
        "server",
        "--password=x",
        "--port=80",
        "--api-key",
        "abc",
        "--token",
        "--verbose",
        "redis://u:p@h",
        "-c",
        "export FOO_TOKEN=abc; run",
        "--auth-token",
        "",
        "plain",
    ]);
    redactor.arguments("spec.process.args", &mut args);
    let hidden: Vec<_> = args
        .iter()
        .map(|arg| arg.starts_with("<redacted:"))
        .collect();
    let mut expected = [false; 13];
    for index in [1, 4, 7, 9] {
        expected[index] = true;
    }
    assert_eq!(hidden, expected, "{args:?}");
}

#[test]
fn annotations_and_labels_are_looked_at() {
    let mut redactor = redactor(&SecretsConfig::default());
    let mut labels = BTreeMap::from([
        ("example.org/api-token".to_string(), "abc".to_string()),
        ("app".to_string(), "web".to_string()),
        (
            "example.org/last-applied".to_string(),
            "{\"password\":\"x\"}".to_string(),
        ),
        (
            "io.kubernetes.cri.image-name".to_string(),
            "r.example/my-token:latest".to_string(),
        ),
    ]);
    redactor.map("container.labels", &mut labels);
    let hidden = |name: &str| labels[name].starts_with("<redacted:");
    assert!(hidden("example.org/api-token") && hidden("example.org/last-applied"));
    assert!(!hidden("app") && !hidden("io.kubernetes.cri.image-name"));
}

/// A hostile environment must not hold up a checkpoint: the work grows with the text only.
#[test]
fn long_texts_take_no_long_time() {
    let rules = Rules::new(&SecretsConfig::default()).unwrap();
    let begun = std::time::Instant::now();
    for piece in [
        "a=",
        "://",
        "PASS=0 ",
        "\"=",
        "a: ",
        "@://",
        "ghp_",
        "-----BEGIN ",
        "KEY",
        "sk-",
    ] {
        rules.is_secret_value(piece.repeat((1 << 20) / piece.len()).as_bytes());
    }
    let took = begun.elapsed();
    assert!(took < std::time::Duration::from_secs(60), "{took:?}");
}
