//! What is not decrypted, and that nothing leaves before the counter is stored.

use veil_protocol_spec::{Epoch, KeySetDigest, agreement::LockError};

use super::*;
use crate::decrypt::WrongDimension;

/// What authorising gives; no effect may come of a refusal.
fn refusal(bench: &mut Bench, outputs: &RecomputedOutputs, lock: &Lock) -> AuthoriseError {
    let before = bench.at(1).counter();
    let refusal = bench.at(1).authorise(outputs.clone(), lock, 0).unwrap_err();
    assert_eq!(drain(bench.at(1)), [], "{refusal}");
    assert_eq!(bench.at(1).counter(), before, "{refusal}");
    refusal
}

#[test]
fn nothing_without_a_lock_for_exactly_this_manifest() {
    let mut bench = Bench::new(4);
    let outputs = bench.outputs(1);
    let too_few = lock(1, bench.committee.participants().take(2));
    let expected = LockError::TooFew { given: 2, needed: 3 };
    assert_eq!(refusal(&mut bench, &outputs, &too_few), AuthoriseError::Lock(expected));

    let mut forged = bench.lock(1);
    forged.votes[2].1 = forged.votes[1].1;
    let expected = LockError::Signature(index(3));
    assert_eq!(refusal(&mut bench, &outputs, &forged), AuthoriseError::Lock(expected));

    let mut twice = bench.lock(1);
    twice.votes[1] = twice.votes[0];
    assert_eq!(refusal(&mut bench, &outputs, &twice), AuthoriseError::Lock(LockError::Voters));

    let other_slot = bench.lock(2);
    let refused = refusal(&mut bench, &outputs, &other_slot);
    assert!(matches!(refused, AuthoriseError::OtherLock { slot: Slot(2), .. }), "{refused}");

    // Its votes are for the slot they were signed for, whatever the lock says.
    let mut relabelled = bench.lock(2);
    relabelled.instance.slot = outputs.context.slot;
    relabelled.value = outputs.context.manifest;
    let expected = LockError::Signature(index(1));
    assert_eq!(refusal(&mut bench, &outputs, &relabelled), AuthoriseError::Lock(expected));

    let mut other_manifest = bench.lock(1);
    other_manifest.value = Blake3Digest([9; 32]);
    let refused = refusal(&mut bench, &outputs, &other_manifest);
    assert!(matches!(refused, AuthoriseError::OtherLock { .. }), "{refused}");

    // An end whose value equals the manifest's digest opens nothing, nor do its votes relabelled.
    let end = Instance::end(Slot(1));
    let mut end_lock = locked(end, outputs.context.manifest, bench.committee.participants());
    assert_eq!(end_lock.verify(bench.committee, &roster(bench.committee)), Ok(()));
    let refused = refusal(&mut bench, &outputs, &end_lock);
    assert_eq!(refused, AuthoriseError::NoManifest(end));
    end_lock.instance = Instance::manifest(Slot(1));
    let expected = AuthoriseError::Lock(LockError::Signature(index(1)));
    assert_eq!(refusal(&mut bench, &outputs, &end_lock), expected);

    let mut other_epoch = bench.lock(1);
    other_epoch.binding.epoch = Epoch(5);
    let refused = refusal(&mut bench, &outputs, &other_epoch);
    let RequestContext { key_set, epoch, slot, manifest, .. } = outputs.context;
    let expected = AuthoriseError::OtherLock { key_set, epoch: Epoch(5), slot, manifest };
    assert_eq!(refused, expected);

    let mut other_key = bench.lock(1);
    other_key.binding.key_set = KeySetDigest([8; 32]);
    let refused = refusal(&mut bench, &outputs, &other_key);
    let key_set = KeySetDigest([8; 32]);
    assert_eq!(refused, AuthoriseError::OtherLock { key_set, epoch, slot, manifest });

    // The votes are for one cluster and one round only.
    let relabel: [fn(&mut Lock); 2] =
        [|lock| lock.round += 1, |lock| lock.binding.scope.cluster = ClusterId([9; 32])];
    for change in relabel {
        let mut relabelled = bench.lock(1);
        change(&mut relabelled);
        let expected = AuthoriseError::Lock(LockError::Signature(index(1)));
        assert_eq!(refusal(&mut bench, &outputs, &relabelled), expected);
    }
}

#[test]
fn nothing_under_another_key_or_epoch_or_of_another_size() {
    let mut bench = Bench::new(4);
    let lock = bench.lock(1);
    let outputs = bench.outputs(1);

    let mut other = outputs.clone();
    other.context.key_set = KeySetDigest([8; 32]);
    let expected = AuthoriseError::OtherKeySet { mine: KEY_SET, asked: KeySetDigest([8; 32]) };
    assert_eq!(refusal(&mut bench, &other, &lock), expected);

    let mut other = outputs.clone();
    other.context.epoch = Epoch(3);
    let expected = AuthoriseError::OtherEpoch { mine: EPOCH, asked: Epoch(3) };
    assert_eq!(refusal(&mut bench, &other, &lock), expected);

    for given in [0, MAX_BLOCKS_PER_REQUEST + 1] {
        let block = SquashedBlock { mask: Vec::new(), body: 0 };
        let other = RecomputedOutputs { blocks: vec![block; given], ..outputs.clone() };
        assert_eq!(refusal(&mut bench, &other, &lock), AuthoriseError::BlockCount { given });
    }

    let mut other = outputs.clone();
    other.blocks[3].mask.push(0);
    let wrong = WrongDimension { block: 3, given: DIMENSION + 1, expected: DIMENSION };
    assert_eq!(refusal(&mut bench, &other, &lock), AuthoriseError::Dimension(wrong));

    // A refusal takes no slot.
    assert_eq!(bench.at(1).authorise(outputs.clone(), &lock, 0), Ok(id(&outputs)));
}

#[test]
fn a_lock_authorises_one_sequence() {
    let mut bench = Bench::new(4);
    let outputs = bench.outputs(1);
    let lock = bench.lock(1);
    let request = bench.start(1, &outputs);
    assert_eq!(bench.at(1).counter().blocks, 5);
    // The same again is neither counted nor sent twice.
    assert_eq!(bench.at(1).authorise(outputs.clone(), &lock, 7), Ok(request));
    assert_eq!(drain(bench.at(1)), []);
    assert_eq!(bench.at(1).counter().blocks, 5);

    let manifest = outputs.context.manifest;
    let taken = AuthoriseError::SlotTaken { slot: Slot(1), step: 0, manifest };
    let mut other = outputs.clone();
    other.blocks[0].body ^= 1;
    assert_eq!(refusal(&mut bench, &other, &lock), taken);

    // Another manifest in the same slot, even if locked.
    let mut other = outputs.clone();
    other.context.manifest = Blake3Digest([9; 32]);
    let mut second = lock.clone();
    second.value = other.context.manifest;
    let digest = Lock::vote_digest(&binding(), second.instance, ROUND, &second.value);
    second.votes.iter_mut().for_each(|(j, signature)| *signature = identity(*j).sign(&digest));
    assert_eq!(refusal(&mut bench, &other, &second), taken);

    // Forgetting the shares does not forget what the slot was authorised for.
    bench.at(1).forget(request);
    let mut other = outputs.clone();
    other.blocks.pop();
    assert_eq!(refusal(&mut bench, &other, &lock), taken);
    assert_eq!(bench.start(1, &outputs), request);
    assert_eq!(bench.at(1).counter().blocks, 5);
}

#[test]
fn a_crafted_block_is_never_computed() {
    let mut bench = Bench::new(4);
    let outputs = bench.outputs(1);
    // a = 2^127 e_i, b = 0: its phase is bit i of the key.
    let mut block = SquashedBlock { mask: vec![0; DIMENSION], body: 0 };
    block.mask[17] = 1 << 127;
    let crafted = RecomputedOutputs { context: context(1), blocks: vec![block] };
    let ask = signed(id(&crafted), 2, DecryptionPayload::Request).to_wire();
    let refused =
        |reason| DecryptionEffect::Refused { from: index(2), request: id(&crafted), reason };

    let verdict = bench.at(1).handle(index(2), &ask, 0);
    assert_eq!(verdict, Verdict::Skip(Skip::NotAuthorised));
    assert_eq!(specials(bench.at(1)), [refused(Skip::NotAuthorised)]);
    bench.start(1, &outputs);
    let verdict = bench.at(1).handle(index(2), &ask, 0);
    assert_eq!(verdict, Verdict::Skip(Skip::NotAuthorised));
    assert_eq!(specials(bench.at(1)), [refused(Skip::NotAuthorised)]);
    assert_eq!(bench.at(1).counter().blocks, 5);
}

#[test]
fn a_key_is_not_used_beyond_its_budget() {
    let budget = Bench::new(4).at(1).budget();
    assert_eq!(budget, 1 << 40);
    let mut bench = Bench::with_counter(4, budget - 6);
    let (first, second) = (bench.outputs(1), bench.outputs(2));
    let request = bench.start(1, &first);
    let lock = bench.lock(2);
    let expected = AuthoriseError::Budget { used: budget - 1, asked: 5, budget };
    let refused = refusal(&mut bench, &second, &lock);
    assert_eq!(refused, expected);
    let text = refused.to_string();
    assert!(text.contains(&budget.to_string()) && text.contains("reshare"), "{text}");
    // What was counted goes on; one block more is possible.
    let lock = bench.lock(1);
    assert_eq!(bench.at(1).authorise(first, &lock, 0), Ok(request));
    let last = RecomputedOutputs { blocks: second.blocks[..1].to_vec(), ..second };
    bench.start(1, &last);
    assert_eq!(bench.at(1).counter().blocks, budget);
    assert!(Bench::with_counter(4, u64::MAX).at(1).authorise(last, &bench.lock(2), 0).is_err());
}

#[test]
fn nothing_leaves_before_the_counter_is_stored() {
    let mut bench = Bench::new(4);
    let outputs = bench.outputs(1);
    let (lock, own) = (bench.lock(1), bench.share(1, &outputs));
    let ask = signed(id(&outputs), 2, DecryptionPayload::Request).to_wire();
    let machine = bench.at(1);
    machine.authorise(outputs.clone(), &lock, 0).unwrap();
    let counter = DecryptionCounter { blocks: 5 };
    assert_eq!(drain(machine), [Effect::Persist { id: PersistId(0), record: counter }]);
    assert_eq!(machine.poll_timeout(), Some(2_000));
    let (request, reason) = (id(&outputs), Skip::NotPersisted);
    let refused = DecryptionEffect::Refused { from: index(2), request, reason };
    assert_eq!(machine.handle(index(2), &ask, 0), Verdict::Skip(Skip::NotPersisted));
    assert_eq!(specials(machine), [refused]);
    assert_eq!(machine.status()[0].outstanding.len(), 4);
    machine.persisted(PersistId(7)); // of nothing
    assert_eq!(drain(machine), []);
    machine.persisted(PersistId(0));
    assert_eq!(drain(machine), [Effect::Broadcast(own.to_wire().into())]);
    machine.persisted(PersistId(0));
    assert_eq!(drain(machine), []);
}

#[test]
fn a_share_whose_counter_cannot_be_stored_stays() {
    let mut bench = Bench::new(4);
    let outputs = bench.outputs(1);
    let (lock, own) = (bench.lock(1), bench.share(1, &outputs));
    let others: Vec<_> = (2..=4).map(|j| bench.share(j, &outputs).to_wire()).collect();
    let machine = bench.at(1);
    machine.authorise(outputs.clone(), &lock, 0).unwrap();
    drain(machine);
    assert!(machine.persist_failed(PersistId(0)));
    machine.persisted(PersistId(0));
    assert_eq!(drain(machine), []);
    assert!(machine.status()[0].not_persisted);
    let ask = signed(id(&outputs), 2, DecryptionPayload::Request).to_wire();
    assert_eq!(machine.handle(index(2), &ask, 0), Verdict::Skip(Skip::NotPersisted));
    assert_eq!(machine.counter().blocks, 5);
    drain(machine);
    // The others complete it.
    for (j, share) in (2..).zip(&others) {
        assert_eq!(machine.handle(index(j), share, 0), Verdict::Valid);
    }
    assert_eq!(completion(&specials(machine)).unwrap().combined.messages(), MESSAGES);
    // Once more, now with a disk: counted once.
    machine.authorise(outputs, &lock, 0).unwrap();
    let counter = DecryptionCounter { blocks: 5 };
    assert_eq!(drain(machine), [Effect::Persist { id: PersistId(1), record: counter }]);
    machine.persisted(PersistId(1));
    assert_eq!(drain(machine), [Effect::Broadcast(own.to_wire().into())]);
}

#[test]
fn open_requests_are_bounded() {
    let mut bench = Bench::new(4);
    for slot in 0..MAX_OPEN as u64 {
        let outputs = bench.outputs(slot);
        bench.start(1, &outputs);
    }
    let outputs = bench.outputs(1000);
    let lock = bench.lock(1000);
    assert_eq!(
        refusal(&mut bench, &outputs, &lock),
        AuthoriseError::TooManyOpen { open: MAX_OPEN }
    );
    let first = bench.at(1).status()[0].request;
    bench.at(1).forget(first);
    bench.start(1, &outputs);
}

#[test]
fn only_the_members_own_identity_and_roster_are_accepted() {
    let committee = Committee::new(4).unwrap();
    let mut rng = ChaCha20Rng::seed_from_u64(1);
    let key = secret_key(&mut rng);
    let mut make = |j, roster| {
        let first = members(committee, &key, &mut rng).remove(0);
        Decryptor::new(first, identity(index(j)), roster, DecryptionCounter::default())
    };
    let short = roster(committee)[..3].to_vec();
    assert_eq!(make(1, short).unwrap_err(), WrongMembership::Roster { given: 3, committee });
    let wrong = WrongMembership::Identity { me: index(1) };
    assert_eq!(make(2, roster(committee)).unwrap_err(), wrong);
}
