//! Who deals or releases what no honest one would, and does so in the right envelope: what opens is judged as well.

use super::*;
use crate::{channel, context::Context, open::Refusals, seal::deal_out, sharing::Share};

impl Cluster {
    /// The share that was dealt to a member.
    fn share_of(&self, member: usize) -> Share {
        let listed = submission(&self.job, OPERATOR);
        self.members[member].deal(&self.job, &listed).unwrap()
    }

    /// Another's share, which its member releases as its own to whoever asked.
    fn released_by(&self, member: usize, share: &Share, asked: &SignedShareRequest) -> Vec<u8> {
        let context = Context::of(&self.job, self.job.sealed_part().unwrap(), &OPERATOR);
        let info = context.released(&asked.request, self.index(member));
        let (key, bytes) = (&asked.request.key.0, share.to_bytes());
        channel::seal(key, &*bytes, &info, context.as_bytes(), &[5; 32]).unwrap()
    }
}

/// A dealer who encrypts to a member, as it should, what is not on the polynomial.
#[test]
fn a_share_that_opens_and_is_not_on_the_polynomial_was_dealt_wrongly() {
    let mut cluster = Cluster::new(4);
    let (wrong, roster) = (cluster.share_of(1), cluster.roster());
    let context = Context::of(&cluster.job, cluster.job.sealed_part().unwrap(), &OPERATOR);
    let ciphertext = cluster.part().ciphertext.clone();
    let info = context.dealt(&ciphertext.0, cluster.index(0));
    let (_, key) = roster.keys().next().unwrap();
    let dealt = channel::seal(key, &*wrong.to_bytes(), &info, context.as_bytes(), &[4; 32]);
    cluster.part().shares[0].share = Bytes(dealt.unwrap());
    let listed = submission(&cluster.job, OPERATOR);
    let refused = cluster.members[0].deal(&cluster.job, &listed).unwrap_err();
    assert_eq!(refused, ShareRefusal::DealtWrongly);
    assert!(cluster.members[1].deal(&cluster.job, &listed).is_ok());
}

/// A member that lies in the right envelope is named, and one that repeats itself counts once.
#[test]
fn a_share_that_opens_counts_once_and_only_as_its_members() {
    let cluster = Cluster::new(4);
    let mut opening = cluster.opening();
    let asked = opening.request().clone();
    let (liar, honest) = (cluster.index(0), cluster.index(1));
    let anothers = cluster.released_by(0, &cluster.share_of(1), &asked);
    assert_eq!(opening.take(liar, &anothers), Err(WrongShare(liar)));
    let own = cluster.released_by(1, &cluster.share_of(1), &asked);
    assert_eq!(opening.take(honest, &own), Ok(false));
    assert_eq!(opening.take(honest, &own), Ok(false), "the same member again");
    assert_eq!(opening.open(), Err(OpenError::TooFew { given: 1, needed: 2 }));
    let third = cluster.released_by(2, &cluster.share_of(2), &asked);
    assert_eq!(opening.take(cluster.index(2), &third), Ok(true));
    assert_eq!(opening.open(), Ok(contents(100)));
}

/// A dealer who seals what no container may have: the worker looks at what it has opened.
#[test]
fn what_opens_and_no_container_can_have_is_refused() {
    let mut cluster = Cluster::new(4);
    let mut hostile = contents(1);
    hostile.files[0].path = "/proc/sysrq-trigger".parse().unwrap();
    let (job, roster, mut rng) = (plain_job(), cluster.roster(), cluster.rng.clone());
    let refused = seal(&job, &hostile, &roster, &sealer_key(), &mut rng).unwrap_err();
    assert!(matches!(refused, SealError::Contents(ContentsError::Mount(_))), "{refused}");
    let part = deal_out(&job, &hostile, &roster, sealer_key().tag(&hostile), &mut rng).unwrap();
    cluster.job.sealed = Sealed::Part(Box::new(part));
    let refused = cluster.open([0, 1]).unwrap_err();
    assert!(matches!(refused, OpenError::Contents(ContentsError::Mount(_))), "{refused}");
}

/// The body that a member has is the one that the certificate names, whoever gave it to it.
#[test]
fn another_body_than_the_certified_one_is_unknown() {
    let cluster = Cluster::new(4);
    let (state, listed) =
        (placed(cluster.job.digest(), &worker().public()), [submission(&cluster.job, OPERATOR)]);
    let mut other = cluster.job.clone();
    other.args.push("--print-secrets".into());
    let known = Known { state: &state, submissions: &listed, body: Some(&other) };
    let answer = cluster.members[0].answer(cluster.opening().request(), known, &[0; 32]);
    assert_eq!(answer, ShareAnswer::Refused(ShareRefusal::UnknownJob));
}

#[test]
fn a_part_was_dealt_wrongly_if_more_members_say_so_than_may_deviate() {
    let agreed = |refusals: &[ShareRefusal]| {
        let mut counted = Refusals::default();
        refusals.iter().for_each(|refusal| counted.count(*refusal));
        counted.agreed(Committee::new(4).unwrap())
    };
    use ShareRefusal::{DealtWrongly, NoShare, NotAssigned, OtherEpoch, SealedElsewhere};
    assert_eq!(agreed(&[DealtWrongly, NotAssigned, NotAssigned]), None);
    assert_eq!(agreed(&[DealtWrongly, DealtWrongly]), Some(DealtWrongly));
    // One lies, and the job was sealed without another.
    assert_eq!(agreed(&[DealtWrongly, NoShare]), None);
    assert_eq!(agreed(&[DealtWrongly, SealedElsewhere]), None);
    assert_eq!(agreed(&[OtherEpoch, SealedElsewhere]), Some(SealedElsewhere));
}
