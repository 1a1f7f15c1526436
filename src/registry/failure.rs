//! Why a request did not do what it was to, whether another try may help, and
//! what a person is told of it.

use std::error::Error as StdError;
use std::time::Duration;

use oci_client::errors::{OciDistributionError, OciEnvelope, OciErrorCode};

use crate::{Error, ErrorKind};

/// Tries of one request, or of one piece of a blob: with the pauses between, 6 seconds.
const MOST_TRIES: u32 = 6;
/// The same for the first contact.
const FIRST_TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Most of what a registry says that is repeated.
const MOST_WORDS: usize = 300;

#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The registry's answer, in HTTP's status and its own words.
    #[error("status {status}: {said}")]
    Refused { status: u16, said: String },
    /// There was no answer, or it broke off.
    #[error("{0}")]
    Broken(String),
    /// Not a matter of the network.
    #[error(transparent)]
    Ours(#[from] Error),
}

impl Failure {
    /// An answer that is not what was asked for; `body` is its beginning.
    pub fn refused(status: u16, body: &[u8]) -> Failure {
        let said = match serde_json::from_slice::<OciEnvelope>(body) {
            Ok(envelope) => words_of(&envelope),
            Err(_) => String::from_utf8_lossy(body).into_owned(),
        };
        Failure::Refused {
            status,
            said: plain(&said),
        }
    }

    /// The status of the answer, if there was one.
    pub fn status(&self) -> Option<u16> {
        match self {
            Failure::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    fn may_pass(&self) -> bool {
        match self {
            Failure::Refused { status, .. } => matches!(status, 408 | 425 | 429 | 500..),
            Failure::Broken(_) => true,
            Failure::Ours(_) => false,
        }
    }

    /// What a person is told; `doing` reads like "push blob x to y", `registry` is its host.
    pub fn into_error(self, doing: &str, registry: &str) -> Error {
        let (kind, why) = match self {
            Failure::Ours(error) => return error.within(doing),
            Failure::Broken(why) => (ErrorKind::Unavailable, why),
            Failure::Refused { status: 401, said } => {
                let hint = format!(
                    "the registry wants other credentials: log in with `docker login {registry}` \
                     or `nerdctl login {registry}`"
                );
                (ErrorKind::HostUnfit, with_words(hint, &said))
            }
            Failure::Refused { status: 403, said } => {
                let hint = "the registry does not allow it to this user".to_owned();
                (ErrorKind::HostUnfit, with_words(hint, &said))
            }
            Failure::Refused { status: 404, said } => {
                let hint = "the registry does not have it".to_owned();
                (ErrorKind::NotFound, with_words(hint, &said))
            }
            Failure::Refused { status, said } => {
                let hint = format!("the registry answers with status {status}");
                (ErrorKind::Unavailable, with_words(hint, &said))
            }
        };
        Error::new(kind, format!("{doing}: {why}"))
    }
}

fn with_words(hint: String, said: &str) -> String {
    match said.is_empty() {
        true => hint,
        false => format!("{hint} ({said})"),
    }
}

fn words_of(envelope: &OciEnvelope) -> String {
    let words = envelope.errors.iter().map(|error| error.message.as_str());
    words.collect::<Vec<_>>().join("; ")
}

/// One line, short, nothing that a terminal obeys.
fn plain(said: &str) -> String {
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    let shown = words.chars().filter(|c| !c.is_control());
    shown.take(MOST_WORDS).collect()
}

impl From<OciDistributionError> for Failure {
    fn from(error: OciDistributionError) -> Failure {
        match error {
            OciDistributionError::RequestError(error) => error.into(),
            OciDistributionError::ServerError { code, message, .. } => {
                Failure::refused(code, message.as_bytes())
            }
            OciDistributionError::UnauthorizedError { .. } => Failure::refused(401, b""),
            OciDistributionError::AuthenticationFailure(said) => {
                Failure::refused(401, said.as_bytes())
            }
            OciDistributionError::RegistryError { envelope, .. } => Failure::Refused {
                status: envelope.errors.first().map_or(400, |e| status_of(&e.code)),
                said: plain(&words_of(&envelope)),
            },
            OciDistributionError::IoError(error) => Failure::Broken(chain(&error)),
            OciDistributionError::DigestError(error) => Failure::Ours(Error::caused_by(
                ErrorKind::CorruptWorld,
                "what came is not what its digest says",
                error,
            )),
            other => Failure::Ours(Error::new(ErrorKind::Unavailable, plain(&chain(&other)))),
        }
    }
}

/// The status that goes with a code, where only the code is known.
fn status_of(code: &OciErrorCode) -> u16 {
    match code {
        OciErrorCode::Unauthorized => 401,
        OciErrorCode::Denied => 403,
        OciErrorCode::BlobUnknown
        | OciErrorCode::ManifestUnknown
        | OciErrorCode::NameUnknown
        | OciErrorCode::NotFound => 404,
        OciErrorCode::Toomanyrequests => 429,
        _ => 400,
    }
}

impl From<reqwest::Error> for Failure {
    fn from(error: reqwest::Error) -> Failure {
        // It is said already which registry it is about.
        let error = error.without_url();
        match error.status() {
            Some(status) => Failure::refused(status.as_u16(), b""),
            None if error.is_builder() => {
                Failure::Ours(Error::new(ErrorKind::Internal, chain(&error)))
            }
            None => Failure::Broken(chain(&error)),
        }
    }
}

/// An error with its causes, without what is said twice.
pub(super) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    // What a server answers that does not know TLS.
    if text.contains("InvalidContentType") {
        text += ": does it speak plain HTTP? (--plain-http)";
    }
    text
}

/// How often something was tried in vain.
#[derive(Debug)]
pub(super) struct Patience {
    tries: u32,
    most: u32,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience {
            tries: 0,
            most: MOST_TRIES,
        }
    }
}

impl Patience {
    /// Less of it: for a registry that has never answered.
    pub fn short() -> Patience {
        Patience {
            tries: 0,
            most: FIRST_TRIES,
        }
    }

    /// Something was achieved: all tries are there again.
    pub fn restore(&mut self) {
        self.tries = 0;
    }

    /// Waits before another try, or gives the failure back where none may help.
    pub async fn bear(&mut self, failure: Failure) -> Result<(), Failure> {
        self.tries += 1;
        if !failure.may_pass() || self.tries >= self.most {
            return Err(failure);
        }
        let pause = FIRST_PAUSE * 2_u32.pow(self.tries - 1);
        tracing::info!("{failure}: another try in {pause:?}");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_says_what_to_do() {
        let error = |status| {
            let body = br#"{"errors":[{"code":"X","message":"no\nway\u001b[31m"}]}"#;
            Failure::refused(status, body).into_error("push blob b to h/r", "h")
        };
        let unauthorized = error(401);
        assert_eq!(unauthorized.kind(), ErrorKind::HostUnfit);
        let said = unauthorized.to_string();
        assert!(said.contains("docker login h"), "{said}");
        assert!(said.contains("push blob b to h/r"), "{said}");
        assert!(said.contains("no way[31m"), "{said}");
        assert_eq!(error(404).kind(), ErrorKind::NotFound);
        assert_eq!(error(502).kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let may_pass = |status| Failure::refused(status, b"").may_pass();
        assert!([408, 429, 500, 503].into_iter().all(may_pass));
        assert!(![400, 401, 403, 404, 413].into_iter().any(may_pass));
        assert!(Failure::Broken(String::new()).may_pass());
        let ours = Error::new(ErrorKind::NoSpace, "full");
        assert!(!Failure::Ours(ours).may_pass());
    }

    #[test]
    fn long_answers_are_cut() {
        let Failure::Refused { said, .. } = Failure::refused(500, &[b'x'; 10_000]) else {
            panic!("refused");
        };
        assert_eq!(said.len(), MOST_WORDS);
    }
}
