//! The ceremony's machine under the driver, with crashes at chosen effects.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::Notify;
use veil_keygen_ceremony::{
    keyset::ParameterSet,
    machine::{Ceremony, CeremonyEffect, CommitPoint, Record},
    seed::CeremonySeed,
    setup::{Setup, Timing},
    store::MemoryStore,
};
use veil_protocol_spec::{
    Attempt, Committee, Epoch, KeySetDigest, ParticipantIndex, ceremony::CeremonyParameters,
    identity::SecretIdentity,
};

use veil_node_driver::{
    Channel, Driver, DriverConfig, Host, HostError, Transports, memory::MemoryNetwork,
};

use super::in_time;

/// A disk that dies after so many effects, with the machine.
#[derive(Clone, Default)]
struct Disk {
    records: Vec<Record>,
    seed_erased: bool,
    effects: u32,
    dies_after: Option<u32>,
    certificate: Arc<Mutex<Option<CommitPoint>>>,
    key_set: Option<KeySetDigest>,
    published: Arc<Notify>,
}

impl Disk {
    fn count(&mut self) -> Result<(), HostError> {
        self.effects += 1;
        if self.dies_after == Some(self.effects) {
            return Err(HostError::new("killed"));
        }
        Ok(())
    }
}

impl Host<Ceremony> for Disk {
    fn persist(&mut self, records: &[Record]) -> Result<(), HostError> {
        for record in records {
            self.count()?;
            self.records.push(record.clone());
        }
        Ok(())
    }

    fn carry_out(&mut self, effect: CeremonyEffect, _: &Ceremony) -> Result<(), HostError> {
        self.count()?;
        match effect {
            CeremonyEffect::EraseSeed => self.seed_erased = true,
            CeremonyEffect::VoidKeyShare => {
                self.records.retain(|record| !matches!(record, Record::KeyShare(_)));
            }
            CeremonyEffect::Publish(certificate) => {
                *self.certificate.lock().unwrap() = Some(CommitPoint::Published(certificate));
                self.published.notify_one();
            }
            CeremonyEffect::Complete(outcome) => {
                self.key_set = Some(outcome.key_set);
                self.published.notify_one();
            }
            CeremonyEffect::Abort(report) => panic!("aborted: {}", report.reason),
        }
        Ok(())
    }
}

fn identity(j: ParticipantIndex) -> SecretIdentity {
    SecretIdentity::from_bytes(&[j.get(); 32]).unwrap()
}

fn setup(j: ParticipantIndex) -> Arc<Setup> {
    let params = ParameterSet::insecure_short();
    let committee = Committee::new(4).unwrap();
    let parameters = CeremonyParameters {
        committee,
        parameters: params.name().to_owned(),
        parameters_digest: params.digest(),
        roster: committee.participants().map(|j| identity(j).public()).collect(),
        epoch: Epoch(0),
        context: [3; 32],
    };
    let timing = Timing { round: 60_000, retry: 200 };
    Arc::new(Setup::new(parameters, params, Attempt(0), &identity(j), timing).unwrap())
}

/// Runs one member to its end, through as many deaths as it is given.
async fn member(network: MemoryNetwork, j: ParticipantIndex, deaths: Vec<u32>) -> KeySetDigest {
    let mut disk = Disk::default();
    let mut deaths = deaths.into_iter();
    loop {
        disk.dies_after = deaths.next();
        disk.effects = 0;
        let seed = (!disk.seed_erased).then(|| CeremonySeed::new([100 + j.get(); 32]));
        // Chunks need not survive; this member loses all of them.
        let store = Box::new(MemoryStore::default());
        let machine = match seed {
            Some(seed) if disk.records.is_empty() => {
                Ceremony::new(setup(j), identity(j), seed, store, 0)
            }
            seed => {
                let records = disk.records.clone();
                Ceremony::resume(setup(j), identity(j), seed, store, records, 0).unwrap()
            }
        };
        let (transport, incoming) = network.of(j).open(Channel::Ceremony, &[]);
        let mut config = DriverConfig::new(Committee::new(4).unwrap(), j);
        config.queues.pause = Duration::from_millis(5);
        let published = Arc::clone(&disk.published);
        let certificate = Arc::clone(&disk.certificate);
        let driver = Driver::start(config, machine, disk, transport, incoming);
        loop {
            tokio::select! {
                () = published.notified() => {}
                () = driver.ended() => break,
            }
            let decided = certificate.lock().unwrap().take();
            let Some(decided) = decided else { break };
            if driver.with(|machine, _| machine.handle_commit_point(decided)).await.is_err() {
                break;
            }
        }
        // Others may still need this member's last messages.
        let ended = if driver.with(|_, _| ()).await.is_ok() {
            driver.finish(Duration::from_secs(10)).await.unwrap()
        } else {
            network.kill(j);
            driver.kill().await.unwrap()
        };
        disk = ended.host;
        if let Some(key_set) = disk.key_set {
            assert!(ended.error.is_none());
            assert!(ended.machine.key_share().is_some());
            return key_set;
        }
        assert!(ended.error.is_some(), "only a death ends it before its time");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_crash_at_any_effect_still_make_one_key() {
    // The own commitment, a message taken, key share and FINISH, several times in a row.
    for deaths in [vec![1], vec![2, 3], vec![9], vec![17, 1], vec![25], vec![33, 2], vec![40, 41]] {
        let network = MemoryNetwork::default();
        let tasks: Vec<_> = Committee::new(4)
            .unwrap()
            .participants()
            .map(|j| {
                let deaths = if j.get() == 3 { deaths.clone() } else { Vec::new() };
                tokio::spawn(member(network.clone(), j, deaths))
            })
            .collect();
        let mut keys = Vec::new();
        for task in tasks {
            keys.push(in_time(task).await.unwrap());
        }
        assert!(keys.iter().all(|key| *key == keys[0]), "{deaths:?}");
    }
}
