//! System jobs, whatever becomes of workers meanwhile.

use proptest::prelude::*;

use super::*;

/// What happens to a cluster between two slots.
#[derive(Clone, Copy, Debug)]
enum Event {
    Comes(u8),
    Silent(u8),
    Loses(u8),
    Leaves(u8),
    Unfit(u8),
    Fits(u8),
    Full(u8),
    Update(bool),
}

fn event() -> impl Strategy<Value = Event> {
    let of = 1u8..=4;
    prop_oneof![
        2 => of.clone().prop_map(Event::Comes),
        1 => of.clone().prop_map(Event::Silent),
        1 => of.clone().prop_map(Event::Loses),
        1 => of.clone().prop_map(Event::Leaves),
        1 => of.clone().prop_map(Event::Unfit),
        2 => of.clone().prop_map(Event::Fits),
        1 => of.prop_map(Event::Full),
        1 => any::<bool>().prop_map(Event::Update),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    /// "Each eligible worker with room ends with exactly one replica, never two."
    #[test]
    fn whatever_happens_each_worker_ends_with_one_and_never_has_two(
        events in prop::collection::vec((event(), 0u8..16), 1..24),
    ) {
        let (mut known, mut state) = started();
        let (mut full, mut version) = (BTreeSet::new(), 1u8);
        for (event, void) in events {
            match event {
                Event::Comes(w) => {
                    known.returns(w);
                    if known.unfit.get(&worker(w)) == Some(&Fit::Gone) {
                        known.unfit.remove(&worker(w));
                    }
                }
                Event::Silent(w) => _ = known.telemetry.remove(&worker(w)),
                Event::Loses(w) => {
                    if known.unfit.get(&worker(w)) != Some(&Fit::Gone) {
                        known.lose(w, 100);
                    }
                }
                Event::Leaves(w) => {
                    known.returns(w);
                    known.telemetry.remove(&worker(w));
                    known.unfit.insert(worker(w), Fit::Gone);
                }
                Event::Unfit(w) | Event::Fits(w)
                    if known.unfit.get(&worker(w)) == Some(&Fit::Gone) => {}
                Event::Unfit(w) if known.telemetry.contains(&worker(w)) => {
                    known.unfit.insert(worker(w), Fit::Unfit);
                }
                Event::Unfit(_) => {}
                Event::Fits(w) => _ = known.unfit.remove(&worker(w)),
                Event::Full(w) => {
                    if !full.remove(&w) {
                        full.insert(w);
                    }
                }
                Event::Update(stops_first) if version < 5 => {
                    version += 1;
                    let position = 10 + u64::from(version);
                    submit(&mut known, position, version, VersionTerms { stops_first, ..terms() });
                }
                Event::Update(_) => {}
            }
            all_say(&mut known, &state, |_, _| Some(true));
            if void == 0 {
                let manifest = known.manifest(&state);
                state = state.follow(&super::super::void(&state, manifest)).unwrap();
            } else {
                state = slot_with(&known, &state, |byte| !full.contains(&byte));
            }
            let places = places(&state);
            prop_assert!(places.windows(2).all(|two| two[0] != two[1]), "{places:?}");
        }
        // It calms down: everybody is back, and has room.
        for w in 1..=4 {
            known.returns(w);
        }
        known.unfit.clear();
        let end = until_quiet(&mut known, state, |_, _| Some(true), |_| {});
        let expected: Vec<_> = (1..=4).map(|worker| (worker, version)).collect();
        prop_assert_eq!(places(&end), expected);
    }
}
