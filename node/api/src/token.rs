//! Tokens: what they look like, and what the wrong one tells whoever holds it.
//!
//! | token | made by |
//! |---|---|
//! | `veil-read-CLUSTER-SECRET` | a node for itself, if its configuration names none |
//! | `veil-session-CLUSTER-EXPIRES-SECRET` | a login |
//!
//! Only the whole text opens something. Cluster and time stand in it for the message to whoever holds a token
//! that opens nothing: which cluster it is for, or when it ended.

use rand::RngCore;
use veil_protocol_spec::ClusterId;
use zeroize::Zeroizing;

use crate::denied::Denied;

/// A secret, as the client sends it.
pub type Token = Zeroizing<String>;

/// The form in which tokens are compared.
#[must_use]
pub fn token_hash(token: &str) -> [u8; 32] {
    blake3::hash(token.as_bytes()).into()
}

fn secret() -> Token {
    let mut bytes = Zeroizing::new([0; 32]);
    rand::rngs::OsRng.fill_bytes(bytes.as_mut_slice());
    Zeroizing::new(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A token that lets its holder read at a node of the cluster.
#[must_use]
pub fn new_read_token(cluster: &ClusterId) -> Token {
    Zeroizing::new(format!("veil-read-{cluster}-{}", secret().as_str()))
}

/// The token of a session that ends at `expires`, Unix time in seconds.
#[must_use]
pub(crate) fn new_session_token(cluster: &ClusterId, expires: u64) -> Token {
    Zeroizing::new(format!("veil-session-{cluster}-{expires}-{}", secret().as_str()))
}

/// What to say to the holder of a token that opens nothing at a node of `cluster`.
#[must_use]
pub(crate) fn why_not(token: &str, cluster: &ClusterId, now: u64) -> Denied {
    let mut parts = token.split('-');
    let (Some("veil"), Some(kind), Some(of)) = (parts.next(), parts.next(), parts.next()) else {
        return Denied::UnknownToken;
    };
    match of.parse::<ClusterId>() {
        Ok(of) if of != *cluster => return Denied::OtherCluster { given: of, node: *cluster },
        Ok(_) => {}
        Err(_) => return Denied::UnknownToken,
    }
    let expires = parts.next().filter(|_| kind == "session").and_then(|text| text.parse().ok());
    match expires {
        Some(expires) if now > expires => Denied::Expired { seconds: now - expires },
        _ => Denied::UnknownToken,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_opens_nothing_says_why() {
        let (here, there) = (ClusterId([1; 32]), ClusterId([2; 32]));
        let other = Denied::OtherCluster { given: there, node: here };
        assert_eq!(why_not(&new_read_token(&there), &here, 5), other);
        assert_eq!(why_not(&new_session_token(&there, 9), &here, 5), other);
        assert_eq!(
            why_not(&new_session_token(&here, 9), &here, 12),
            Denied::Expired { seconds: 3 }
        );
        for unknown in [
            new_session_token(&here, 9).as_str(),
            new_read_token(&here).as_str(),
            "",
            "veil",
            "veil-session-00-1-2",
            "veil-read",
        ] {
            assert_eq!(why_not(unknown, &here, 9), Denied::UnknownToken, "{unknown}");
        }
    }
}
