//! The steps in which members send something, and the two streams of shares.

use serde::{Deserialize, Serialize};

macro_rules! rounds {
    ($($(#[$doc:meta])* $round:ident = $name:literal;)*) => {
        /// The communication steps in order.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum Round {
            $($(#[$doc])* #[serde(rename = $name)] $round,)*
        }

        impl Round {
            /// All rounds in order.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$round),*];

            /// The name used in logs and reports.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$round => $name,)*
                }
            }
        }
    };
}

rounds! {
    /// Step 1: channel keys and commitments.
    Commit = "commit";
    /// Step 2: echo of step 1.
    CommitEcho = "commit-echo";
    /// Step 3: private contributions.
    Deal = "deal";
    /// Step 4: confirmation of the keys made from them; public seed.
    Confirm = "confirm";
    /// Step 5: echo of step 4.
    ConfirmEcho = "confirm-echo";
    /// The reference string, raised by one member after another (`reference-string.md`).
    ReferenceString = "reference-string";
    /// Echo of that.
    ReferenceStringEcho = "reference-string-echo";
    /// Step 6: root of the stream that opens v = r^2 + r of every key bit.
    BitsRoot = "bits-root";
    /// Step 7: echo of step 6; then the chunks of that stream.
    BitsRootEcho = "bits-root-echo";
    /// Step 8: root of the stream that opens the public material.
    BodiesRoot = "bodies-root";
    /// Step 9: echo of step 8; then the chunks of that stream.
    BodiesRootEcho = "bodies-root-echo";
    /// Step 10: key set digest and a test decryption with the new share.
    Prove = "prove";
    /// Step 11: the signature that makes the key valid, with those of all others.
    Finish = "finish";
    /// Any time before FINISH: this attempt makes no key.
    Abort = "abort";
}

impl Round {
    /// The round whose messages this one echoes.
    #[must_use]
    pub const fn echoes(self) -> Option<Self> {
        match self {
            Self::CommitEcho => Some(Self::Commit),
            Self::ConfirmEcho => Some(Self::Confirm),
            Self::ReferenceStringEcho => Some(Self::ReferenceString),
            Self::BitsRootEcho => Some(Self::BitsRoot),
            Self::BodiesRootEcho => Some(Self::BodiesRoot),
            _ => None,
        }
    }
}

impl core::fmt::Display for Round {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.name())
    }
}

/// The two large openings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    /// v = r^2 + r of every key bit.
    Bits,
    /// The bodies of the public material.
    Bodies,
}

impl Stream {
    /// The round that publishes the stream's root.
    #[must_use]
    pub const fn root_round(self) -> Round {
        match self {
            Self::Bits => Round::BitsRoot,
            Self::Bodies => Round::BodiesRoot,
        }
    }
}
