//! Passwords: SCRAM-SHA-256 verifiers in PostgreSQL's text form, and the server's side of the exchange.
//!
//! A verifier is all that the store keeps; a password exists in clear only inside the statement that
//! sets it. An unknown user is taken through the whole exchange with an invented verifier, so that the
//! answer does not tell who exists. Channel binding is deliberately absent (the mechanism with PLUS is
//! not offered).

use base64_text::{decode, encode};
pub(super) use pgwire::api::auth::sasl::scram::ScramServerAuthWaitingForClientFinal as Waiting;
use pgwire::api::auth::sasl::scram::{ScramSecret, ScramServerAuth, gen_salted_password};

/// The only mechanism offered.
pub const MECHANISM: &str = "SCRAM-SHA-256";

/// Iterations of a new verifier, PostgreSQL's default.
pub const ITERATIONS: u32 = 4096;

/// Bytes of a new salt, PostgreSQL's.
pub const SALT_BYTES: usize = 16;

/// Length of a SHA-256 sum.
const KEY_BYTES: usize = 32;

/// What of a password is stored.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// How often the password was hashed.
    pub iterations: u32,
    /// The salt.
    pub salt: Vec<u8>,
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

/// Why a text is not a verifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a verifier of the form SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>")]
pub struct NotAVerifier;

/// Why a client was not let in. Deliberately says nothing about the user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum ExchangeError {
    /// The message is not SCRAM as we offered it.
    #[error("malformed SCRAM message")]
    Malformed,
    /// The proof does not match.
    #[error("password authentication failed")]
    WrongPassword,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Verifier").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// Derives the verifier of a password, in the text form that `CREATE USER … PASSWORD` also accepts.
/// Pure: the salt is drawn by the caller.
#[must_use]
pub fn derive_verifier(password: &str, salt: &[u8], iterations: u32) -> String {
    let rounds = iterations as usize;
    let salted = gen_salted_password(password, salt, rounds);
    match ScramSecret::verifier_from_salted_password(salt.to_vec(), salted, rounds) {
        ScramSecret::Verifier { stored_key, server_key, .. } => {
            Verifier { iterations, salt: salt.to_vec(), stored_key, server_key }.to_text()
        }
        // The constructor above makes nothing else; a verifier nobody can satisfy is the safe answer.
        ScramSecret::SaltedPassword { .. } => String::new(),
    }
}

/// As [`derive_verifier`], with a random salt and the usual iterations.
#[must_use]
pub fn make_verifier(password: &str) -> String {
    derive_verifier(password, &rand::random::<[u8; SALT_BYTES]>(), ITERATIONS)
}

/// Whether a password is the one that a verifier was made of. Takes milliseconds, by intent.
#[must_use]
pub fn password_matches(verifier: &str, password: &str) -> bool {
    Verifier::parse(verifier).is_ok_and(|known| {
        let again = derive_verifier(password, &known.salt, known.iterations);
        Verifier::parse(&again).is_ok_and(|again| again.stored_key == known.stored_key)
    })
}

impl Verifier {
    /// Reads the text form.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn parse(text: &str) -> Result<Verifier, NotAVerifier> {
        let rest = text.strip_prefix("SCRAM-SHA-256$").ok_or(NotAVerifier)?;
        let (head, keys) = rest.split_once('$').ok_or(NotAVerifier)?;
        let (iterations, salt) = head.split_once(':').ok_or(NotAVerifier)?;
        let (stored, server) = keys.split_once(':').ok_or(NotAVerifier)?;
        let iterations: u32 = iterations.parse().map_err(|_| NotAVerifier)?;
        let salt = decode(salt).ok_or(NotAVerifier)?;
        let stored_key = decode(stored).ok_or(NotAVerifier)?;
        let server_key = decode(server).ok_or(NotAVerifier)?;
        let whole = stored_key.len() == KEY_BYTES && server_key.len() == KEY_BYTES;
        if iterations == 0 || salt.is_empty() || !whole {
            return Err(NotAVerifier);
        }
        Ok(Verifier { iterations, salt, stored_key, server_key })
    }

    /// The text form.
    #[must_use]
    pub fn to_text(&self) -> String {
        format!(
            "SCRAM-SHA-256${}:{}${}:{}",
            self.iterations,
            encode(&self.salt),
            encode(&self.stored_key),
            encode(&self.server_key)
        )
    }

    /// A verifier that no password satisfies, for users who do not exist: always the same salt for one
    /// name, as a real user's would be.
    pub(super) fn invented(user: &str, server_secret: &[u8]) -> Verifier {
        let salt = gen_salted_password(user, server_secret, 1);
        Verifier {
            iterations: ITERATIONS,
            salt: salt[..SALT_BYTES].to_vec(),
            stored_key: rand::random::<[u8; KEY_BYTES]>().to_vec(),
            server_key: rand::random::<[u8; KEY_BYTES]>().to_vec(),
        }
    }
}

/// Answers the client's first message: what to send, and what to check the last message with.
pub(super) fn begin(
    verifier: Verifier,
    message: &[u8],
) -> Result<(String, Waiting), ExchangeError> {
    let secret = ScramSecret::Verifier {
        salt: verifier.salt,
        iterations: verifier.iterations as usize,
        stored_key: verifier.stored_key,
        server_key: verifier.server_key,
    };
    ScramServerAuth::new()
        .on_client_first_message_with_secret(message, secret)
        .map_err(|_| ExchangeError::Malformed)
}

/// Answers the client's last message: the server's own proof, when the client's is right.
pub(super) fn finish(waiting: &Waiting, message: &[u8]) -> Result<String, ExchangeError> {
    waiting.on_client_final_message(message).map_err(|_| ExchangeError::WrongPassword)
}

/// Base64 with padding, the alphabet of RFC 4648.
mod base64_text {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

    pub(super) fn encode(bytes: &[u8]) -> String {
        let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
        for chunk in bytes.chunks(3) {
            let at = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
            let group = at(0) << 16 | at(1) << 8 | at(2);
            for place in 0..4 {
                let digit = ALPHABET[(group >> (18 - 6 * place)) as usize & 63];
                text.push(if place <= chunk.len() { digit as char } else { '=' });
            }
        }
        text
    }

    pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
        let bytes = text.as_bytes();
        if !bytes.len().is_multiple_of(4) {
            return None;
        }
        let digits = bytes.len() - bytes.iter().rev().take(2).take_while(|b| **b == b'=').count();
        let mut out = Vec::with_capacity(bytes.len() / 4 * 3);
        let (mut group, mut bits) = (0_u32, 0);
        for byte in &bytes[..digits] {
            let value = ALPHABET.iter().position(|letter| letter == byte)?;
            group = group << 6 | value as u32;
            bits += 6;
            if bits >= 8 {
                bits -= 8;
                out.push((group >> bits) as u8);
                group &= (1 << bits) - 1;
            }
        }
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::{
        base64_text::{decode, encode},
        *,
    };
    use proptest::prelude::*;

    #[test]
    fn a_verifier_is_what_postgresql_makes_of_the_same_password_and_salt() {
        // Computed by an independent PBKDF2 and HMAC.
        let text = derive_verifier("pencil", b"0123456789abcdef", 4096);
        assert_eq!(
            text,
            "SCRAM-SHA-256$4096:MDEyMzQ1Njc4OWFiY2RlZg==$\
             nQpbZ77WudtqufPwikHXGRt6g2QJ4zns8bZLw273DRM=:jn2amWP1q1h+jgjy0YTO14S6/F02SV7taipOeB7ef20="
        );
        assert_eq!(Verifier::parse(&text).unwrap().to_text(), text);
    }

    #[test]
    fn a_password_is_known_by_its_verifier() {
        let verifier = make_verifier("pencil");
        assert!(password_matches(&verifier, "pencil"));
        assert!(!password_matches(&verifier, "Pencil"));
        assert!(!password_matches("no verifier", "pencil"));
        assert_ne!(verifier, make_verifier("pencil"), "the salt is random");
    }

    #[test]
    fn other_texts_are_no_verifiers() {
        let good = derive_verifier("x", b"salt", 10);
        for bad in
            ["", "md5abc", "SCRAM-SHA-256$", &good[..good.len() - 4], &good.replace(':', ";")]
        {
            assert_eq!(Verifier::parse(bad), Err(NotAVerifier), "{bad} was taken");
        }
    }

    #[test]
    fn a_verifier_does_not_show_its_keys_in_debug_output() {
        let verifier = Verifier::parse(&derive_verifier("x", b"salt", 10)).unwrap();
        assert_eq!(format!("{verifier:?}"), "Verifier { iterations: 10, .. }");
    }

    proptest! {
        #[test]
        fn base64_is_read_back(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(decode(&encode(&bytes)), Some(bytes));
        }

        #[test]
        fn garbage_in_the_exchange_is_an_error(message in proptest::collection::vec(any::<u8>(), 0..80)) {
            let verifier = Verifier::parse(&derive_verifier("x", b"salt", 10)).unwrap();
            if let Ok((_, waiting)) = begin(verifier, &message) {
                prop_assert!(finish(&waiting, &message).is_err());
            }
        }
    }
}
