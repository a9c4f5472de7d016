//! Preparing a root filesystem, against the kernel's overlayfs. Needs root.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use auraed::api::pod::v0::{MountTarget, UserQuery};
use auraed::rootfs::{self, Request, image};

/// A request over `layers`, the last of which is the topmost. Scratch space is a tmpfs, as an upper directory must not be on an overlay.
struct Place {
    dir: tempfile::TempDir,
    request: Request,
}

impl Place {
    fn new(layers: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        nix::mount::mount(Some("t"), dir.path(), Some("tmpfs"), nix::mount::MsFlags::empty(), None::<&str>).unwrap();
        let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let lower_paths: Vec<_> = (0..layers).rev().map(|number| at(&format!("layer{number}"))).collect();
        for path in &lower_paths {
            fs::create_dir(path).unwrap();
            fs::write(Path::new(path).join("top"), path.rsplit('/').next().unwrap()).unwrap();
        }
        let request = Request {
            container_id: "one".into(),
            lower_paths,
            scratch_path: at("scratch"),
            rootfs_path: at("rootfs"),
            volumes_path: at("volumes"),
            ..Request::default()
        };
        Self { dir, request }
    }

    fn lower(&self) -> &Path {
        Path::new(&self.request.lower_paths[0])
    }

    fn rootfs(&self) -> &Path {
        Path::new(&self.request.rootfs_path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = rootfs::release(&self.request);
        let _ = nix::mount::umount2(self.dir.path(), nix::mount::MntFlags::MNT_DETACH);
    }
}

#[test]
fn a_hundred_and_twenty_layers() {
    let place = Place::new(120);
    fs::set_permissions(place.lower(), fs::Permissions::from_mode(0o751)).unwrap();
    rootfs::prepare(&place.request, None).unwrap();
    assert_eq!(fs::read_to_string(place.rootfs().join("top")).unwrap(), "layer119");
    assert_eq!(fs::metadata(place.rootfs()).unwrap().mode() & 0o7777, 0o751);
    fs::write(place.rootfs().join("new"), "").unwrap();
    rootfs::release(&place.request).unwrap();
    assert!(!place.rootfs().exists());
    assert!(Path::new(&place.request.scratch_path).join("upper/new").exists());
    rootfs::release(&place.request).unwrap();
}

#[test]
fn a_second_call_answers_like_the_first() {
    let mut place = Place::new(2);
    fs::create_dir(place.lower().join("data")).unwrap();
    fs::write(place.lower().join("data/seed"), "seed").unwrap();
    std::os::unix::fs::chown(place.lower().join("data"), Some(7), Some(8)).unwrap();
    symlink("data", place.lower().join("alias")).unwrap();
    place.request.user = Some(UserQuery { uid: Some(7), ..UserQuery::default() });
    place.request.working_dir = "/work/here".into();
    place.request.image_volumes = vec!["/alias".into(), "/missing".into(), "/../../data".into()];
    place.request.mount_targets =
        vec![MountTarget { path: "/etc/hosts".into(), directory: false }, MountTarget { path: "/mnt/dir".into(), directory: true }];
    let first = rootfs::prepare(&place.request, None).unwrap();
    assert_eq!(fs::metadata(place.rootfs().join("work/here")).unwrap().uid(), 7);
    assert!(place.rootfs().join("etc/hosts").is_file() && place.rootfs().join("mnt/dir").is_dir());
    let [alias, missing, dots] = &first.volume_paths[..] else { panic!("{first:?}") };
    assert_eq!(fs::read_to_string(Path::new(alias).join("seed")).unwrap(), "seed");
    assert_eq!((fs::metadata(alias).unwrap().uid(), fs::metadata(alias).unwrap().gid()), (7, 8));
    assert_eq!(fs::read_dir(missing).unwrap().count(), 0);
    assert!(Path::new(dots).join("seed").exists());
    fs::write(Path::new(alias).join("seed"), "changed").unwrap();
    assert_eq!(rootfs::prepare(&place.request, None).unwrap(), first);
    assert_eq!(fs::read_to_string(Path::new(alias).join("seed")).unwrap(), "changed");
}

#[test]
fn a_hostile_image_reaches_nothing_outside() {
    let mut place = Place::new(1);
    let outside = place.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "secret").unwrap();
    symlink(&outside, place.lower().join("out")).unwrap();
    symlink("/proc/self/root", place.lower().join("magic")).unwrap();
    fs::write(place.lower().join("file"), "").unwrap();
    for volume in ["", "/", "/..", "/file", "/../.."] {
        place.request.image_volumes = vec![volume.into()];
        assert!(rootfs::prepare(&place.request, None).unwrap_err().is_invalid(), "{volume:?}");
        assert!(!rootfs::overlay::is_mounted(place.rootfs()).unwrap());
    }
    // A link to nowhere inside the tree: an empty volume.
    place.request.image_volumes = vec!["/out".into()];
    let prepared = rootfs::prepare(&place.request, None).unwrap();
    assert_eq!(fs::read_dir(&prepared.volume_paths[0]).unwrap().count(), 0);
    place.request.image_volumes.clear();
    for path in ["/out/made", "/magic/made", "/file/made"] {
        place.request.working_dir = path.into();
        assert!(rootfs::prepare(&place.request, None).unwrap_err().is_invalid(), "{path}");
        place.request.working_dir.clear();
        place.request.mount_targets = vec![MountTarget { path: path.into(), directory: false }];
        assert!(rootfs::prepare(&place.request, None).unwrap_err().is_invalid(), "{path}");
        place.request.mount_targets.clear();
    }
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    place.request.lower_paths.clear();
    let _ = rootfs::release(&place.request);
    assert!(rootfs::prepare(&place.request, None).unwrap_err().is_invalid());
}

/// The image of `place` as a volume of which `sub_path` is seen.
fn volume(place: &Place, sub_path: &str) -> image::Request {
    image::Request {
        container_id: "one".into(),
        lower_paths: place.request.lower_paths.clone(),
        sub_path: sub_path.into(),
        mount_path: place.dir.path().join("image").to_str().unwrap().into(),
    }
}

#[test]
fn an_image_as_a_volume_is_merged_and_read_only() {
    for layers in [1, 2, 120] {
        let place = Place::new(layers);
        fs::create_dir_all(place.lower().join("etc/deep")).unwrap();
        fs::write(place.lower().join("etc/deep/file"), "deep").unwrap();
        symlink("/etc/deep", place.lower().join("link")).unwrap();
        for (sub_path, file) in [("", "top"), ("etc", "deep/file"), ("etc//./deep/", "file"), ("link", "file")] {
            let request = volume(&place, sub_path);
            let path = image::mount(&request, None).unwrap();
            assert_eq!(image::mount(&request, None).unwrap(), path);
            assert!(rootfs::overlay::is_mounted(&path).unwrap());
            assert!(path.join(file).is_file(), "{layers} layers, {sub_path:?}");
            let refused = fs::write(path.join(file), "").unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
            image::unmount(&path).unwrap();
            assert!(!path.exists());
            image::unmount(&path).unwrap();
        }
    }
}

#[test]
fn a_directory_of_an_image_lies_inside_it() {
    for layers in [1, 2] {
        let place = Place::new(layers);
        fs::create_dir(place.dir.path().join("outside")).unwrap();
        symlink(place.dir.path().join("outside"), place.lower().join("out")).unwrap();
        symlink("../../../../../../../tmp", place.lower().join("up")).unwrap();
        symlink("/proc/self/root", place.lower().join("magic")).unwrap();
        for sub_path in ["missing", "top", "out", "up", "magic", "top/x"] {
            let request = volume(&place, sub_path);
            let error = image::mount(&request, None).unwrap_err();
            assert!(error.is_invalid() && error.to_string().contains(sub_path), "{layers} layers, {sub_path}: {error}");
            assert!(!Path::new(&request.mount_path).exists());
        }
        let none = image::Request { lower_paths: Vec::new(), ..volume(&place, "") };
        assert!(image::mount(&none, None).unwrap_err().is_invalid());
    }
}
