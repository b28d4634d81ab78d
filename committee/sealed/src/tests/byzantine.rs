//! A dealer and t members that do what they like, together.

use veil_protocol_spec::scheduling::{Resources, SealedRequest};

use super::*;
use crate::{channel, context::Context, seal::tests_only};

/// What a dealer gives a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dealt {
    Right,
    /// A share of another polynomial.
    OffPolynomial,
    /// No share at all, well encrypted.
    Garbage,
    /// What is encrypted to another member.
    Anothers,
}

/// What a member does that deviates.
#[derive(Clone, Copy, Debug)]
enum Act {
    /// It answers nobody.
    Silent,
    /// It answers with noise.
    Noise,
    /// It answers with a share of another polynomial, encrypted as it should be.
    OffPolynomial,
    /// It passes an honest member's answer off as its own.
    Anothers,
    /// It gave its share to a worker that has won nothing, and gives it to the winner.
    Early,
}

fn deals() -> impl Strategy<Value = Vec<Dealt>> {
    let wrong = [Dealt::OffPolynomial, Dealt::Garbage, Dealt::Anothers];
    let one = prop_oneof![4 => Just(Dealt::Right), 1 => prop::sample::select(wrong.to_vec())];
    prop::collection::vec(one, 7)
}

fn acts() -> impl Strategy<Value = Vec<(usize, Act)>> {
    let all = [Act::Silent, Act::Noise, Act::OffPolynomial, Act::Anothers, Act::Early];
    let who = prop::sample::subsequence((0..7).collect::<Vec<_>>(), 0..=2);
    (who, prop::collection::vec(prop::sample::select(all.to_vec()), 2))
        .prop_map(|(who, acts)| who.into_iter().zip(acts).collect())
}

/// The same committee, with another polynomial.
fn another(n: u8) -> Cluster {
    let mut other = Cluster::new(n);
    let (job, roster) = (plain_job(), other.roster());
    let part = seal(&job, &contents(9), &roster, &sealer_key(), &mut other.rng).unwrap();
    other.job.sealed = Sealed::Part(Box::new(part));
    other
}

/// A committee whose dealer has dealt so.
fn dealt_to(n: u8, deals: &[Dealt]) -> Cluster {
    let mut cluster = Cluster::new(n);
    let (roster, other) = (cluster.roster(), another(n));
    let (job, part) = (cluster.job.clone(), other.job.sealed_part().unwrap().clone());
    let honest = job.sealed_part().unwrap().shares.clone();
    for (member, dealt) in deals.iter().enumerate().take(n.into()) {
        let index = cluster.index(member);
        let bytes = match dealt {
            Dealt::Right => continue,
            Dealt::OffPolynomial => {
                tests_only::dealt(&other.job, &part, &other.members[member]).to_bytes().to_vec()
            }
            Dealt::Garbage => vec![0xff; 64],
            Dealt::Anothers => {
                let next = (member + 1) % usize::from(n);
                cluster.part().shares[member].share = honest[next].share.clone();
                continue;
            }
        };
        tests_only::deal(&job, cluster.part(), &roster, index, &bytes);
    }
    cluster
}

/// An answer to the question with these bytes in place of a share.
fn answer_with(
    cluster: &Cluster,
    asked: &SignedShareRequest,
    member: usize,
    bytes: &[u8],
) -> Vec<u8> {
    let part = cluster.job.sealed_part().unwrap();
    let context = Context::of(&cluster.job, part, &OPERATOR);
    let info = context.released(&asked.request, cluster.index(member));
    channel::seal(&asked.request.key.0, bytes, &info, context.as_bytes(), &[6; 32]).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The winner opens if t+1 members are honest and were dealt right, which they are unless the dealer deals wrongly to
    /// more than t; else it opens nothing, and nobody honest is named.
    #[test]
    fn whatever_a_dealer_and_t_members_do(large in any::<bool>(), deals in deals(), acts in acts()) {
        let n = if large { 7 } else { 4 };
        let cluster = dealt_to(n, &deals);
        let t = cluster.committee.max_faulty().get();
        let acts: Vec<_> = acts.into_iter().filter(|(who, _)| *who < n.into()).take(t).collect();
        let mut opening = cluster.opening();
        let asked = opening.request().clone();
        let deviates = |member| acts.iter().find(|(who, _)| *who == member).map(|(_, act)| *act);
        let (mut taken, mut gave_away) = (0, Vec::new());
        let other = another(n);
        for (member, deal) in deals.iter().enumerate().take(n.into()) {
            let (index, is_right) = (cluster.index(member), *deal == Dealt::Right);
            let own = cluster.ask(member, &asked);
            prop_assert_eq!(own.is_ok(), is_right, "a member knows what was dealt to it");
            let wrong = Err(WrongShare(index));
            match (deviates(member), own) {
                (Some(Act::Silent), _) | (None, Err(ShareRefusal::DealtWrongly)) => {}
                (Some(Act::Noise), _) => {
                    prop_assert_eq!(opening.take(index, &[0x5a; 1200]), wrong);
                }
                (Some(Act::OffPolynomial), _) => {
                    let part = other.job.sealed_part().unwrap();
                    let share = tests_only::dealt(&other.job, part, &other.members[member]);
                    let answer = answer_with(&cluster, &asked, member, &*share.to_bytes());
                    prop_assert_eq!(opening.take(index, &answer), wrong);
                }
                (Some(Act::Anothers), _) => {
                    let others = (0..usize::from(n)).filter(|other| *other != member);
                    for answer in others.filter_map(|other| cluster.ask(other, &asked).ok()) {
                        prop_assert_eq!(opening.take(index, &answer), wrong);
                    }
                }
                (Some(Act::Early), Ok(share)) => {
                    gave_away.push((index, share.clone()));
                    taken += 1;
                    prop_assert!(opening.take(index, &share).is_ok());
                }
                (Some(Act::Early), Err(_)) => {}
                (None, Ok(share)) => {
                    taken += 1;
                    prop_assert_eq!(opening.take(index, &share), Ok(taken > t));
                }
                (None, Err(refusal)) => prop_assert!(false, "{}", refusal),
            }
        }
        let wrong_deals = deals.iter().take(n.into()).filter(|deal| **deal != Dealt::Right).count();
        if wrong_deals <= t {
            prop_assert!(taken > t, "n - 2t right ones are left");
        }
        if taken > t {
            prop_assert_eq!(opening.open(), Ok(contents(100)));
        } else {
            prop_assert_eq!(opening.open(), Err(OpenError::TooFew { given: taken, needed: t + 1 }));
        }
        // Who got the shares of those that release early has t at most, and opens nothing.
        let mut early = cluster.opening();
        for (index, share) in &gave_away {
            prop_assert_eq!(early.take(*index, share), Ok(false));
        }
        let given = gave_away.len();
        prop_assert_eq!(early.open(), Err(OpenError::TooFew { given, needed: t + 1 }));
    }
}

#[test]
fn an_operator_seals_the_same_to_the_same_bytes_and_anything_else_to_others() {
    let cluster = Cluster::new(4);
    let (job, roster, key) = (plain_job(), cluster.roster(), sealer_key());
    let drawn = |job: &JobSpec, bytes| *key.randomness(job, &contents(bytes), &roster);
    assert_eq!(drawn(&job, 5), drawn(&job, 5));
    assert_ne!(drawn(&job, 5), drawn(&job, 6));
    assert_ne!(drawn(&job, 5), drawn(&JobSpec { nonce: 2, ..plain_job() }, 5));
    let fewer = SealingRoster::new(
        binding(),
        cluster.committee,
        &cluster.identities,
        &cluster.announced[1..],
    );
    assert_ne!(drawn(&job, 5), *key.randomness(&job, &contents(5), &fewer.unwrap()));
    let other = SealerKey::from_signature(b"another's");
    assert_ne!(drawn(&job, 5), *other.randomness(&job, &contents(5), &roster));
    assert_eq!(format!("{key:?}"), "SealerKey(<redacted>)");
    // What an account signs is of one operator's job of one name, whatever version.
    let renamed = JobSpec { name: "other".parse().unwrap(), ..plain_job() };
    assert_ne!(SealerKey::to_sign(&renamed), SealerKey::to_sign(&job));
    assert_eq!(SealerKey::to_sign(&JobSpec { nonce: 2, ..plain_job() }), SealerKey::to_sign(&job));
}

#[test]
fn a_tag_tells_equal_contents_whatever_their_request_is_encrypted_with() {
    let key = sealer_key();
    let with = |cpu: u16, nonce: u64| {
        let limits = Resources { cpu: CpuUnits(cpu), ..Resources::default() };
        let seed = key.request_seed(nonce, &limits);
        let mut contents = contents(5);
        contents.request = Some(SealedRequest { limits, seed });
        contents
    };
    assert_ne!(with(1, 1), with(1, 2), "each submission has a seed of its own");
    assert_eq!(key.tag(&with(1, 1)), key.tag(&with(1, 2)));
    assert_ne!(key.tag(&with(1, 1)), key.tag(&with(2, 1)));
    assert_ne!(key.tag(&contents(5)), key.tag(&contents(6)));
    let other = SealerKey::from_signature(b"another's");
    assert_ne!(key.tag(&contents(5)), other.tag(&contents(5)), "nobody can try contents");
}
