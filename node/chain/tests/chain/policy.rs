//! Policies, rights, images.

use veil_contracts::{
    node_registry::NodeRegistry::NodeRegistryErrors,
    policy_registry::PolicyRegistry::PolicyRegistryErrors as PolicyErrors,
};
use veil_node_chain::{Allowance, ClusterSettings, ImageStatus, Refusal, Rights};
use veil_protocol_spec::scheduling::{ImageApproval, ImagePart, ImageParts, PartKind};

use crate::support::{World, refusal};

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_proved_by_its_parts_until_it_is_revoked() {
    let world = World::new(4).await;
    let (admin, cluster) = (&world.admin, world.cluster);
    let leaf = |kind, byte| ImagePart { kind, digest: [byte; 32] };
    let parts = [
        leaf(PartKind::Config, 1),
        leaf(PartKind::Layer, 2),
        leaf(PartKind::Layer, 3),
        leaf(PartKind::Signature, 4),
    ];
    let (manifest, tree) = ([0x1a; 32], ImageParts::new(parts.to_vec()).unwrap().tree());
    assert!(admin.is_image_allowed(cluster, manifest).await.unwrap(), "not restricted yet");
    let stranger = world.account(3);
    let approval = ImageApproval { root: tree.root(), signature: Some([4; 32]) };
    let signed = tree.proof(3).unwrap();
    let refused = refusal(stranger.allow_image(cluster, manifest, approval, &signed).await);
    assert!(refused.to_string().contains("--right images"), "{refused}");
    let images = Allowance { rights: Rights::IMAGES, ..Allowance::NONE };
    admin.set_allowance(cluster, stranger.account().unwrap(), images).await.unwrap();
    let wrong = ImageApproval { signature: Some([5; 32]), ..approval };
    let refused = refusal(stranger.allow_image(cluster, manifest, wrong, &signed).await);
    assert!(refused.to_string().contains("commits to no signature"), "{refused}");
    stranger.allow_image(cluster, manifest, approval, &signed).await.unwrap();
    let found = admin.image(cluster, manifest).await.unwrap();
    assert_eq!((found.status, found.approval), (ImageStatus::Allowed, approval));
    let listed = admin.allowed_images(cluster).await.unwrap().unwrap();
    assert_eq!(listed, [(manifest, approval)].into());
    assert!(!admin.is_image_allowed(cluster, [0x1b; 32]).await.unwrap(), "restricted now");
    for (i, part) in parts.iter().enumerate() {
        let proof = tree.proof(i).unwrap();
        assert!(admin.verify_image_part(cluster, manifest, *part, &proof).await.unwrap(), "{i}");
        let other = leaf(PartKind::Layer, 9);
        assert!(!admin.verify_image_part(cluster, manifest, other, &proof).await.unwrap());
    }
    stranger.revoke_image(cluster, manifest).await.unwrap();
    let proof = tree.proof(0).unwrap();
    assert!(!admin.verify_image_part(cluster, manifest, parts[0], &proof).await.unwrap());
    assert!(!admin.is_image_allowed(cluster, manifest).await.unwrap());
    let refused = refusal(stranger.revoke_image(cluster, manifest).await);
    assert!(matches!(refused, Refusal::Policy(PolicyErrors::ImageNotAllowed(_))), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_widens_is_announced_and_a_begun_cluster_is_finished() {
    let world = World::new(4).await;
    let settings = ClusterSettings {
        salt: [3; 32],
        widening_delay: 3600,
        policy: Vec::new(),
        ..ClusterSettings::new(world.committee)
    };
    let cluster = world.admin.register_cluster(&settings).await.unwrap();
    let again = world.admin.register_cluster(&settings).await;
    let refused = refusal(again);
    assert!(
        matches!(refused, Refusal::Registry(NodeRegistryErrors::ClusterAlreadyRegistered(_))),
        "{refused:?}"
    );
    // As if the upload of the policy had failed the first time.
    let settings = ClusterSettings { policy: b"spread".to_vec(), ..settings };
    assert_eq!(world.admin.register_cluster(&settings).await.unwrap(), cluster);
    assert_eq!(world.admin.cluster_policy(cluster).await.unwrap(), b"spread");

    // Young clusters have nobody to warn; this one is old now.
    world.pass(4000).await;
    world.admin.set_cluster_policy(cluster, b"binpack").await.unwrap();
    assert_eq!(world.admin.cluster_policy(cluster).await.unwrap(), b"spread");
    let (announced, from) = world.admin.announced_policy(cluster).await.unwrap().unwrap();
    assert_eq!(announced, b"binpack");
    let (_, now) = world.admin.block().await.unwrap();
    assert!(from > now, "{from} {now}");
    world.pass(3700).await;
    assert_eq!(world.admin.cluster_policy(cluster).await.unwrap(), b"binpack");
}
