//! A slot's plan, what it costs, and the cleartext twin: everything that can be said of a placement
//! without a ciphertext.
//!
//! # Role
//! A committee member asks here whether a manifest can be evaluated and what that costs before it
//! votes for it; the scheduler runs the circuits of this crate on ciphertexts; the twin decides on
//! clear readings by the same rules, for tests and simulators. There is no tfhe in this crate.
//!
//! # Flow
//! 1. [`Plan::new`](plan::Plan::new) derives the plan from a manifest and its
//!    [`PublicInputs`](inputs::PublicInputs), or refuses with a [`PlanError`](inputs::PlanError).
//!    Its documentation states the rules of placement.
//! 2. [`Plan::cost`](plan::Plan::cost) counts the look-ups of the slot by the noise that enters
//!    them, and [`Cost::log2_failure`](cost::Cost::log2_failure) bounds the failure probability.
//! 3. [`circuit::run`] is the circuit, over any [`Value`](circuit::digit::Value): numbers here,
//!    ciphertexts in `veil-scheduler`. [`cleartext::place`] is its twin.
//! 4. [`threshold`] is the other circuit, which asks replica after replica, and its twin.
//! 5. [`outcome::read`] turns what was opened into assignments, and [`outcome::openings`] assignments into what was
//!    opened.
//!
//! # State and restart
//! None: everything is a function of its arguments, the same for every member.
//!
//! # Failure probability
//! Every look-up has entries of the stock width and an input whose noise is a linear combination of
//! fresh ciphertexts, of at most the variance that the parameters are made for (2-norm 5, so 25):
//! 2^-136 for n = 4 and 2^-129 for n = 13 or better, by `ParameterSet::log2_p_fail_at` of the key
//! generation crate. Each digit carries its variance, and the circuit's author cannot write a
//! look-up with more than 25. The union bound over all look-ups is the slot's.
//!
//! Packing, many-output look-ups and the use of the padding bit do not change the margin: entries
//! are as wide as elsewhere, and there is no carry out of the torus. A first look-up of a list has
//! the noise of the public key and of its switch, as in tfhe's own expansion.
//!
//! # Caveats
//! The noise of inputs is taken as independent, which tfhe assumes too; digits that share an
//! ancestor are not quite that. A failure is a wrong placement, the same for every evaluator, and
//! [`outcome::decode`] refuses it if it is no candidate.
//!
//! # Example
//! One replica, two workers:
//!
//! ```
//! use veil_protocol_spec::{scheduling::*, *};
//! use veil_scheduler_plan::{
//!     cleartext::{self, Secrets},
//!     inputs::PublicInputs,
//!     plan::Plan,
//! };
//!
//! # let scope = ClusterScope {
//! #     chain_id: ChainId(1),
//! #     contract: Address([1; 20]),
//! #     cluster: ClusterId([2; 32]),
//! # };
//! # let name = "app".parse().unwrap();
//! # let image = format!("localhost:5000/app@sha256:{}", "ab".repeat(32)).parse().unwrap();
//! let request = ResourceRequest::Clear(Resources {
//!     cpu: CpuUnits(5),
//!     memory: MemoryUnits(18),
//!     disk: DiskUnits(0),
//!     gpu: GpuUnits(0),
//! });
//! let job = JobSpec {
//!     replicas: 1,
//!     policy: SchedulingPolicy::Spread,
//!     // ...
//! #   ..JobSpec::new(scope, Address([3; 20]), 0, name, image, request)
//! };
//! let manifest = Manifest {
//!     telemetry: [4, 5]
//!         .map(|id| TelemetryEntry {
//!             sender: PeerIdHash([id; 32]),
//!             digest: Blake3Digest([id; 32]),
//!         })
//!         .to_vec(),
//!     pending: vec![PendingReplica {
//!         submission: 0,
//!         job: job.digest(),
//!         replica: ReplicaIndex(0),
//!         only: None,
//!         candidates: ALL_CANDIDATES,
//!     }],
//! #   binding: Binding { scope, key_set: KeySetDigest([6; 32]), epoch: Epoch(0) },
//! #   slot: Slot(1),
//! #   proposer: ParticipantIndex::new(1).unwrap(),
//! #   previous: KeccakDigest([0; 32]),
//! #   block: BlockRef { number: 1, hash: KeccakDigest([7; 32]) },
//! #   base: KeccakDigest([0; 32]),
//! #   jobs_seen: 1,
//! #   policy: KeccakDigest([8; 32]),
//! #   circuit: CircuitId { version: 1, fingerprint: Blake3Digest([9; 32]) },
//! #   leaving: Vec::new(),
//! #   done: Vec::new(),
//! #   lost: Vec::new(),
//! #   given_back: Vec::new(),
//! #   rollouts: RolloutChanges::default(),
//! #   runs: Vec::new(),
//!     // ...
//! };
//! let public = PublicInputs {
//!     policy: ClusterPolicy { scale: Scale::FINEST, ..ClusterPolicy::default() },
//!     jobs: [(job.digest(), job)].into(),
//!     ..PublicInputs::default()
//! };
//!
//! let plan = Plan::new(&manifest, &public)?;
//! assert!(plan.refusals().is_empty());
//! // One digit of 4 bits numbers up to 15 workers.
//! assert_eq!(plan.output_digits(), 1);
//! let cost = plan.cost();
//! assert!(plan.without_overhead() <= cost.look_ups() && cost.largest_variance() <= 25);
//!
//! // `spread` prefers the worker with more of what the job asks for most, its memory.
//! let reading = |units| Reading {
//!     free: Quantities::from_array(units).unwrap(),
//!     ..Reading::default()
//! };
//! let readings = [reading([9, 20, 0, 0]), reading([7, 40, 0, 0])];
//! assert_eq!(cleartext::place(&plan, &readings, &Secrets::default()), [Some(1)]);
//! # Ok::<(), veil_scheduler_plan::inputs::PlanError>(())
//! ```

mod bound;
pub mod circuit;
pub mod cleartext;
pub mod cost;
pub mod inputs;
pub mod outcome;
pub mod plan;
pub mod rules;
pub mod threshold;
pub mod unfit;
