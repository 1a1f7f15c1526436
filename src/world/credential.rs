//! What looks like a credential: by its name, or by its value.
//!
//! The rules would rather take one value too many than one too few: what is
//! replaced is information for people only, a restore does not need it.

use globset::{Glob, GlobBuilder, GlobSet, GlobSetBuilder};

use super::secrets::SecretsConfig;
use crate::{Error, ErrorKind, Result};

/// Patterns of names whose values are credentials. `-`, `.` and `/` in a name count as `_`.
pub const DENY_NAMES: [&str; 47] = [
    "*ACCESSKEY*",
    "*ACCESS_KEY*",
    "*APIKEY*",
    "*API_KEY*",
    "*CONNECTIONSTRING*",
    "*CONNECTION_STRING*",
    "*CREDENTIAL*",
    "*DATABASE_URL*",
    "*MNEMONIC*",
    "*PASSPHRASE*",
    "*PASSWD*",
    "*PASSWORD*",
    "*PRIVATEKEY*",
    "*PRIVATE_KEY*",
    "*SECRET*",
    "*TOKEN",
    "*TOKEN_*",
    "*WEBHOOK_URL*",
    "*_AUTH",
    "*_COOKIE",
    "*_CREDS",
    "*_DB_URL",
    "*_DSN",
    "*_HMAC",
    "*_JWT",
    "*_KEY",
    "*_KEY_LIVE",
    "*_KEY_PROD",
    "*_KEY_TEST",
    "*_KEY_[0-9]*",
    "*_OTP",
    "*_PASS",
    "*_PAT",
    "*_PIN",
    "*_PSK",
    "*_PWD",
    "*_PW",
    "*_SALT",
    "*_SAS",
    "*_SEED",
    "*_WEBHOOK",
    "AUTHORIZATION",
    "*_AUTHORIZATION",
    "DSN",
    "PASS",
    "PGPASS",
    "JWT",
];

/// Names that [`DENY_NAMES`] would take and that hold no credential. Their values are still
/// looked at.
pub const HARMLESS_NAMES: [&str; 12] = [
    "*_DIR",
    "*_FILE",
    "*_PATH",
    "*_SOCK",
    "*KEYBOARD*",
    "*PUBKEY*",
    "*PUBLICKEY*",
    "*PUBLIC_KEY*",
    "*TOKENIZER*",
    "*_MAX_TOKEN*",
    "GPG_KEY",
    "*_ACCESS_KEY_ID",
];

/// Beginnings of known tokens, and how many characters of a token must follow.
pub const TOKEN_PREFIXES: [(&str, usize); 56] = [
    ("A3T", 16),
    ("ABIA", 16),
    ("ACCA", 16),
    ("AGE-SECRET-KEY-", 20),
    ("AIza", 30),
    ("AKIA", 12),
    ("ASIA", 12),
    ("ATATT", 20),
    ("SG.", 20),
    ("dckr_pat_", 16),
    ("doo_v1_", 16),
    ("dop_v1_", 16),
    ("dp.pt.", 16),
    ("eyJ", 20),
    ("figd_", 16),
    ("ghp_", 16),
    ("gho_", 16),
    ("ghu_", 16),
    ("ghs_", 16),
    ("ghr_", 16),
    ("github_pat_", 16),
    ("glcbt-", 16),
    ("gldt-", 16),
    ("glpat-", 16),
    ("glptt-", 16),
    ("glrt-", 16),
    ("glsa_", 16),
    ("glc_", 16),
    ("gsk_", 16),
    ("hf_", 16),
    ("hvb.", 16),
    ("hvs.", 16),
    ("lin_api_", 16),
    ("npm_", 30),
    ("ntn_", 16),
    ("nvapi-", 16),
    ("pat_", 30),
    ("phc_", 20),
    ("pypi-", 16),
    ("r8_", 16),
    ("rk_live_", 10),
    ("rk_test_", 10),
    ("shpat_", 16),
    ("shpss_", 16),
    ("sk-", 20),
    ("sk_live_", 10),
    ("sk_test_", 10),
    ("sntrys_", 16),
    ("sq0atp-", 16),
    ("tskey-", 12),
    ("whsec_", 10),
    ("xapp-", 10),
    ("xoxa-", 8),
    ("xoxb-", 8),
    ("xoxp-", 8),
    ("ya29.", 16),
];

/// Values too plain to be worth hiding.
const PLAIN_VALUES: [&str; 12] = [
    "", "0", "1", "true", "false", "yes", "no", "on", "off", "none", "null", "nil",
];

/// The rules of a host, ready to be applied.
pub struct Rules {
    deny: GlobSet,
    harmless: GlobSet,
    allow: GlobSet,
    prefixes: Vec<String>,
}

impl Rules {
    /// The built-in rules with those of the configuration.
    /// [`ErrorKind::InvalidInput`] where a pattern makes no sense.
    pub fn new(config: &SecretsConfig) -> Result<Rules> {
        if config.deny_values_prefixes.iter().any(String::is_empty) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "secrets.deny_values_prefixes: an empty prefix would take every value",
            ));
        }
        let denied = config.deny_names.iter().map(String::as_str);
        Ok(Rules {
            deny: globs("deny_names", DENY_NAMES.into_iter().chain(denied))?,
            harmless: globs("deny_names", HARMLESS_NAMES.into_iter())?,
            allow: globs("allow_names", config.allow_names.iter().map(String::as_str))?,
            prefixes: config.deny_values_prefixes.clone(),
        })
    }

    /// Whether a name with its value is a credential.
    pub fn is_secret(&self, name: &[u8], value: &[u8]) -> bool {
        let name = String::from_utf8_lossy(name);
        if self.allow.is_match(name.as_ref()) || is_plain(value) {
            return false;
        }
        self.is_secret_name(&name) || self.is_secret_value(value)
    }

    /// Whether a name alone says that its value is a credential.
    pub fn is_secret_name(&self, name: &str) -> bool {
        if self.allow.is_match(name) {
            return false;
        }
        let name = name.trim_matches(|c: char| !c.is_alphanumeric());
        let name = name.replace(['-', '.', '/', ' '], "_");
        self.deny.is_match(&name) && !self.harmless.is_match(&name)
    }

    /// Whether a value is or contains a credential, whatever its name.
    pub fn is_secret_value(&self, value: &[u8]) -> bool {
        let text = String::from_utf8_lossy(value);
        self.prefixes.iter().any(|p| text.starts_with(p.as_str()))
            || holds_private_key(&text)
            || holds_url_password(&text)
            || holds_token(&text)
            || self.holds_assignment(&text)
    }

    /// `password=x`, `--api-key=x`, `Password=x;`, `"token": "x"` somewhere in a text.
    fn holds_assignment(&self, text: &str) -> bool {
        let around = |c: char| matches!(c, '"' | '\'' | '\\' | ' ' | '\t');
        text.char_indices().any(|(at, sign)| {
            let rest = &text[at + sign.len_utf8()..];
            let assigns = match sign {
                '=' => true,
                ':' => rest.starts_with(around),
                _ => false,
            };
            if !assigns {
                return false;
            }
            let before = text[..at].trim_end_matches(around);
            let name = before
                .rsplit(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.')))
                .next()
                .unwrap_or_default();
            // The name first: a text may be long and hold many signs.
            if name.is_empty() || !self.is_secret_name(name) {
                return false;
            }
            let value = rest
                .trim_start_matches(around)
                .split(|c: char| {
                    c.is_whitespace() || matches!(c, '"' | '\'' | '\\' | ';' | '&' | ',')
                })
                .next()
                .unwrap_or_default();
            !is_plain(value.as_bytes())
        })
    }
}

fn globs<'a>(field: &str, patterns: impl Iterator<Item = &'a str>) -> Result<GlobSet> {
    let invalid = |error: globset::Error| {
        Error::caused_by(ErrorKind::InvalidInput, format!("secrets.{field}"), error)
    };
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let glob: Glob = GlobBuilder::new(pattern)
            .case_insensitive(true)
            .build()
            .map_err(invalid)?;
        set.add(glob);
    }
    set.build().map_err(invalid)
}

fn is_plain(value: &[u8]) -> bool {
    PLAIN_VALUES
        .iter()
        .any(|plain| value.eq_ignore_ascii_case(plain.as_bytes()))
}

fn holds_private_key(text: &str) -> bool {
    text.split("-----BEGIN ").skip(1).any(|rest| {
        rest.split('-')
            .next()
            .unwrap_or_default()
            .contains("PRIVATE KEY")
    })
}

/// `scheme://user:password@host` or `scheme://long-token@host` somewhere in a text.
fn holds_url_password(text: &str) -> bool {
    text.split_whitespace().any(|word| {
        // From the first scheme up to the last `@`: there may be several URLs in a word, and
        // people forget to encode `/` and `@` in passwords.
        let userinfo = word
            .split_once("://")
            .and_then(|(_, rest)| rest.rsplit_once('@'))
            .map_or("", |(userinfo, _)| userinfo);
        match userinfo.split_once(':') {
            Some((_, password)) => !password.is_empty(),
            None => userinfo.len() >= 16 && !userinfo.contains('/'),
        }
    })
}

fn holds_token(text: &str) -> bool {
    let of_token = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    TOKEN_PREFIXES.iter().any(|(prefix, least)| {
        text.match_indices(prefix).any(|(at, _)| {
            let before = text[..at].chars().next_back();
            let begins = !before.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
            let rest = text[at + prefix.len()..].chars();
            begins && rest.take_while(|c| of_token(*c)).take(*least).count() == *least
        })
    })
}
