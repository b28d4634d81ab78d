//! What this member proposes and votes for.
//!
//! # Rule
//! "Before a member votes for a manifest, and before it proposes one, it stores" its inputs (`slot.md`, 3). The
//! agreement's control is private here, and what it is told of manifests is told by a [`KeptManifest`], which only
//! the input store makes: code that skips the rule does not compile.

use std::sync::Arc;

use veil_committee_agreement::{Agreement, Validity};
use veil_node_core::evaluation::{InputSource, KeptManifest};
use veil_node_driver::{Control, Stopped};
use veil_protocol_spec::{
    Blake3Digest, ParticipantIndex, Wire,
    agreement::{Instance, SlotEnd},
    scheduling::Manifest,
};

use crate::{local_view::ViewSnapshot, validator::Validator};

/// See the [module documentation](self); cheap to clone.
#[derive(Clone)]
pub(crate) struct Ballot(Control<Agreement>);

/// A manifest that a member has proposed.
pub(crate) struct Proposed {
    /// What votes name.
    pub(crate) digest: Blake3Digest,
    /// By whom, in this round.
    pub(crate) proposer: ParticipantIndex,
    /// Whether only what every member sees alike counts against it.
    pub(crate) appeal: bool,
    pub(crate) manifest: Manifest,
}

impl Ballot {
    /// Of this machine.
    pub(crate) const fn new(agreement: Control<Agreement>) -> Self {
        Self(agreement)
    }

    /// Starts an instance.
    pub(crate) async fn start(&self, instance: Instance) -> Result<(), Stopped> {
        let started = self.0.with(move |machine, now| machine.start(instance, now)).await?;
        if let Err(error) = started {
            tracing::error!(slot = instance.slot.0, %error, "the agreement is not started");
        }
        Ok(())
    }

    /// The instance that it is in, or was in last.
    pub(crate) async fn instance(&self) -> Result<Instance, Stopped> {
        self.0.with(|machine, _| machine.instance()).await
    }

    // ---- manifests -------------------------------------------------------------------------

    /// Keeps what a manifest of this member's names, then proposes it.
    pub(crate) async fn propose(self, inputs: InputSource, round: u32, manifest: Manifest) {
        let slot = manifest.slot.0;
        match inputs.fetch_and_keep(manifest).await {
            Ok((_, kept)) => self.propose_kept(round, &kept).await,
            Err(error) => {
                tracing::warn!(slot, round, %error, "not proposed: its inputs are not all here");
            }
        }
    }

    async fn propose_kept(&self, round: u32, kept: &KeptManifest) {
        let manifest = kept.manifest();
        let proposed = self.offer(Instance::manifest(manifest.slot), round, manifest.to_wire());
        // If it has stopped, the slots end, which says so.
        let _ = proposed.await;
    }

    /// Judges what another member proposes, and says so; what it names is kept by then, if it is valid.
    pub(crate) async fn judge(
        self,
        validator: Arc<Validator>,
        received: ViewSnapshot,
        proposed: Proposed,
    ) {
        let Proposed { digest, proposer, appeal, manifest } = proposed;
        // A manifest of an earlier round comes again with its first proposer.
        let author = if appeal { manifest.proposer } else { proposer };
        let slot = manifest.slot.0;
        match validator.validate(received, manifest, author, appeal).await {
            Ok(kept) => self.accept(&kept).await,
            Err(reason) => {
                tracing::warn!(slot, %proposer, %digest, %reason, "a manifest is refused");
                self.say(digest, Validity::Invalid).await;
            }
        }
    }

    async fn accept(&self, kept: &KeptManifest) {
        self.say(kept.manifest().digest(), Validity::Valid).await;
    }

    // ---- ends ------------------------------------------------------------------------------

    /// Proposes how a slot ends.
    pub(crate) async fn propose_end(&self, round: u32, end: SlotEnd) -> Result<(), Stopped> {
        self.offer(Instance::end(end.slot), round, end.to_wire()).await
    }

    /// Says whether a slot may end so.
    pub(crate) async fn judge_end(&self, end: SlotEnd, valid: bool) {
        let validity = if valid { Validity::Valid } else { Validity::Invalid };
        self.say(end.digest(), validity).await;
    }

    // ---- both ------------------------------------------------------------------------------

    async fn offer(&self, instance: Instance, round: u32, value: Vec<u8>) -> Result<(), Stopped> {
        let offer =
            self.0.with(move |machine, now| machine.propose(instance, round, value, now)).await?;
        if let Err(error) = offer {
            let slot = instance.slot.0;
            tracing::warn!(slot, round, %error, "this member's proposal was not taken");
        }
        Ok(())
    }

    async fn say(&self, digest: Blake3Digest, validity: Validity) {
        let said = self.0.with(move |machine, now| machine.validated(digest, validity, now));
        // If it has stopped, the slots end, which says so.
        let _ = said.await;
    }
}
