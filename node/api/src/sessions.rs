//! Challenges, logins and their tokens. The caller brings the time.
//!
//! # State
//! Sessions and challenges that were answered, both bounded: only who has proved an account that the chain
//! grants a right adds to them.

use std::collections::{BTreeMap, HashMap};

use rand::RngCore;
use veil_protocol_spec::{Address, ClusterId};
use zeroize::Zeroizing;

use crate::{
    denied::LoginError,
    token::{Token, new_session_token, token_hash},
};

/// Seconds in which a challenge can be answered.
pub const CHALLENGE_SECONDS: u64 = 60;
/// Seconds that a token is good for.
pub const SESSION_SECONDS: u64 = 15 * 60;
/// Sessions of one account; the one that ends first makes room for one more.
const MAX_OF_ONE_ACCOUNT: usize = 8;
/// Sessions of all accounts.
const MAX_SESSIONS: usize = 4096;
const NONCE: usize = 16;

/// What an operator's key signs to log in, beside chain, directory, cluster and the node's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Login {
    /// Who logs in.
    pub account: Address,
    /// For whom: itself, or the operator that has delegated this to it.
    pub operator: Address,
    /// Of this node.
    pub challenge: [u8; 32],
    /// Until when it can be answered, Unix time in seconds.
    pub expires: u64,
}

/// A session of which a token was shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Session {
    pub(crate) account: Address,
    pub(crate) operator: Address,
    expires: u64,
}

/// See the [module documentation](self).
pub struct Sessions {
    key: Zeroizing<[u8; 32]>,
    cluster: ClusterId,
    /// By the hash of the token: what is in memory opens nothing.
    open: HashMap<[u8; 32], Session>,
    /// Answered challenges, with the time until which they must be remembered.
    answered: BTreeMap<[u8; 32], u64>,
}

impl core::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Sessions").field("open", &self.open.len()).finish_non_exhaustive()
    }
}

impl Sessions {
    /// None yet, at a node of this cluster.
    #[must_use]
    pub fn new(cluster: ClusterId) -> Self {
        let mut key = Zeroizing::new([0; 32]);
        rand::rngs::OsRng.fill_bytes(key.as_mut_slice());
        Self { key, cluster, open: HashMap::new(), answered: BTreeMap::new() }
    }

    /// A challenge for an account; nothing is remembered of it.
    #[must_use]
    pub fn challenge(&self, account: Address, now: u64) -> Login {
        let mut nonce = [0; NONCE];
        rand::rngs::OsRng.fill_bytes(&mut nonce);
        let expires = now.saturating_add(CHALLENGE_SECONDS);
        let challenge = self.authenticate(account, expires, nonce);
        Login { account, operator: account, challenge, expires }
    }

    /// The nonce, and what only this process could put after it.
    fn authenticate(&self, account: Address, expires: u64, nonce: [u8; NONCE]) -> [u8; 32] {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher.update(account.as_bytes()).update(&expires.to_be_bytes()).update(&nonce);
        let mut challenge = [0; 32];
        let (first, second) = challenge.split_at_mut(NONCE);
        first.copy_from_slice(&nonce);
        hasher.finalize_xof().fill(second);
        challenge
    }

    /// Whether a challenge is this node's, for this account, in time, and not answered yet.
    ///
    /// # Errors
    /// [`LoginError`].
    pub fn check(&self, login: &Login, now: u64) -> Result<(), LoginError> {
        let mut nonce = [0; NONCE];
        nonce.copy_from_slice(login.challenge.split_at(NONCE).0);
        // Compared as hashes, which takes the same time wherever they differ.
        let issued = blake3::Hash::from(self.authenticate(login.account, login.expires, nonce));
        if issued != login.challenge {
            return Err(LoginError::NotIssued);
        }
        if now > login.expires {
            return Err(LoginError::Expired);
        }
        if self.answered.contains_key(&login.challenge) {
            return Err(LoginError::Replayed);
        }
        Ok(())
    }

    /// Opens a session for a login whose signature and rights the caller has checked; it ends at `until` at the
    /// latest, when what is delegated to the account does. Its token, and until when it is good.
    ///
    /// # Errors
    /// [`LoginError`].
    pub fn open(
        &mut self,
        login: &Login,
        until: Option<u64>,
        now: u64,
    ) -> Result<(Token, u64), LoginError> {
        self.check(login, now)?;
        self.open.retain(|_, session| session.expires >= now);
        self.answered.retain(|_, until| *until >= now);
        let of_account = self.open.iter().filter(|(_, open)| open.account == login.account);
        let ending = of_account.clone().min_by_key(|(_, open)| open.expires);
        let ending = ending.map(|(token, _)| *token);
        if of_account.count() >= MAX_OF_ONE_ACCOUNT
            && let Some(ending) = ending
        {
            self.open.remove(&ending);
        }
        if self.open.len() >= MAX_SESSIONS {
            return Err(LoginError::Full);
        }
        let expires = now.saturating_add(SESSION_SECONDS).min(until.unwrap_or(u64::MAX));
        let token = new_session_token(&self.cluster, expires);
        self.answered.insert(login.challenge, login.expires);
        let Login { account, operator, .. } = *login;
        self.open.insert(token_hash(&token), Session { account, operator, expires });
        Ok((token, expires))
    }

    /// Whose session a token is of, if it is of one that has not ended.
    #[must_use]
    pub(crate) fn session(&self, token: &str, now: u64) -> Option<Session> {
        let session = self.open.get(&token_hash(token))?;
        (session.expires >= now).then_some(*session)
    }

    /// Ends a session. Whether there was one.
    pub fn close(&mut self, token: &str) -> bool {
        self.open.remove(&token_hash(token)).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Address = Address([1; 20]);
    const BOB: Address = Address([2; 20]);
    const NOW: u64 = 1_000_000;

    fn sessions() -> Sessions {
        Sessions::new(ClusterId([3; 32]))
    }

    #[test]
    fn a_challenge_opens_one_session_of_its_account_in_time() {
        let mut sessions = sessions();
        let login = sessions.challenge(ALICE, NOW);
        assert_eq!(
            sessions.check(&Login { account: BOB, ..login }, NOW),
            Err(LoginError::NotIssued)
        );
        let later = Login { expires: login.expires + 1, ..login };
        assert_eq!(sessions.check(&later, NOW), Err(LoginError::NotIssued));
        assert_eq!(self::sessions().check(&login, NOW), Err(LoginError::NotIssued));
        assert_eq!(sessions.check(&login, login.expires + 1), Err(LoginError::Expired));
        let (token, expires) = sessions.open(&login, None, login.expires).unwrap();
        assert_eq!(sessions.session(&token, expires).map(|session| session.account), Some(ALICE));
        assert_eq!(sessions.session(&token, expires + 1), None);
        assert_eq!(sessions.open(&login, None, login.expires).unwrap_err(), LoginError::Replayed);
        assert!(sessions.close(&token) && !sessions.close(&token));
        assert_eq!(sessions.session(&token, NOW), None);
    }

    #[test]
    fn an_account_has_few_sessions_and_the_first_makes_room() {
        let mut sessions = sessions();
        let mut open = |account, now| {
            let login = sessions.challenge(account, now);
            sessions.open(&login, None, now).unwrap().0
        };
        let of_bob = open(BOB, NOW);
        let tokens: Vec<_> =
            (0..=MAX_OF_ONE_ACCOUNT as u64).map(|i| open(ALICE, NOW + i)).collect();
        let is_open = |token: &Token| sessions.session(token, NOW + 60).is_some();
        assert!(!is_open(&tokens[0]) && tokens[1..].iter().all(is_open) && is_open(&of_bob));
    }

    #[test]
    fn a_delegates_session_ends_with_its_delegation() {
        let mut sessions = sessions();
        let login = Login { operator: BOB, ..sessions.challenge(ALICE, NOW) };
        let (token, expires) = sessions.open(&login, Some(NOW + 5), NOW).unwrap();
        assert_eq!(expires, NOW + 5);
        let session = sessions.session(&token, NOW + 5).unwrap();
        assert_eq!((session.account, session.operator), (ALICE, BOB));
        assert_eq!(sessions.session(&token, NOW + 6), None);
        let login = Login { operator: BOB, ..sessions.challenge(ALICE, NOW) };
        let (_, expires) = sessions.open(&login, Some(u64::MAX), NOW).unwrap();
        assert_eq!(expires, NOW + SESSION_SECONDS);
    }

    #[test]
    fn what_has_ended_is_forgotten() {
        let mut sessions = sessions();
        for i in 0..100 {
            let now = NOW + i * (SESSION_SECONDS + 1);
            let login = sessions.challenge(ALICE, now);
            sessions.open(&login, None, now).unwrap();
        }
        assert_eq!((sessions.open.len(), sessions.answered.len()), (1, 1));
    }

    #[test]
    fn printing_tells_no_secret() {
        let mut sessions = sessions();
        let login = sessions.challenge(ALICE, NOW);
        let (token, _) = sessions.open(&login, None, NOW).unwrap();
        assert!(!format!("{sessions:?}").contains(token.as_str()));
        assert!(token.len() > 64 && token.starts_with("veil-session-"));
    }
}
