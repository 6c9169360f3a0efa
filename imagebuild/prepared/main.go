// SPDX-License-Identifier: Apache-2.0

// Writes a containerd root directory in which images are known and their layers unpacked, without the layers: each
// snapshot's directory is empty, and a file in the form of fstab(5) says which layer is mounted there. Uses containerd's own
// packages, so that the data bases are what the containerd of the same version would have written.
//
// A link to the layer would be enough for overlayfs, but not for a pod with user namespaces: containerd makes a copy of the
// mount that a snapshot's directory is in, with other owners, and a link leads out of it.
//
// Needs neither root nor a running containerd, works for any architecture, and gives the same bytes each time: data bases
// are copied into new ones, bucket by bucket, with fixed times.
//
// Standard input has the request as JSON. The directory OUT of the only argument must exist and be empty.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	v1 "github.com/opencontainers/image-spec/specs-go/v1"
	bolt "go.etcd.io/bbolt"
)

const (
	// What kubelet's runtime interface uses.
	namespace   = "k8s.io"
	snapshotter = "overlayfs"

	// Directories that containerd names after its plugins.
	metadataDir  = "io.containerd.metadata.v1.bolt"
	contentDir   = "io.containerd.content.v1.content"
	snapshotsDir = "io.containerd.snapshotter.v1.overlayfs"
	// What containerd.service mounts.
	mountsFile = "layers.fstab"

	// Labels of CRI's image service, internal/cri/labels.
	managedLabel, managed = "io.cri-containerd.image", "managed"
	pinnedLabel, pinned   = "io.cri-containerd.pinned", "pinned"
	// A layer in the bundle takes no room: its snapshot stays when the image's name is removed.
	rootLabel        = "containerd.io/gc.root"
	snapshotRefLabel = "containerd.io/gc.ref.snapshot." + snapshotter
)

// The time of everything.
var epoch = time.Unix(0, 0).UTC()

type request struct {
	// containerd's root directory on the device.
	Root string `json:"root"`
	// Where the layers are on the device: a layer's directory has the hex of its diff id.
	Layers string  `json:"layers"`
	Images []image `json:"images"`
}

type image struct {
	// Full reference.
	Name string `json:"name"`
	// Media type of the manifest.
	MediaType string `json:"media_type"`
	// The manifest and the config that it names, byte for byte.
	Manifest []byte `json:"manifest"`
	Config   []byte `json:"config"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "prepare containerd's state:", err)
		os.Exit(1)
	}
}

func run() error {
	if len(os.Args) != 2 {
		return errors.New("usage: containerd-state OUT")
	}
	var r request
	decoder := json.NewDecoder(os.Stdin)
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&r); err != nil {
		return fmt.Errorf("read the request: %w", err)
	}
	out := os.Args[1]
	meta := filepath.Join(out, metadataDir, "meta.db")
	layers := filepath.Join(out, snapshotsDir, "metadata.db")
	for _, directory := range []string{filepath.Dir(meta), filepath.Join(out, snapshotsDir, "snapshots")} {
		if err := os.MkdirAll(directory, 0o711); err != nil {
			return err
		}
	}
	log.L.Logger.SetOutput(io.Discard)
	if err := fill(&r, out, meta, layers); err != nil {
		return err
	}
	for _, file := range []string{meta, layers} {
		if err := copyOf(file); err != nil {
			return fmt.Errorf("write %s anew: %w", file, err)
		}
	}
	// Written to while blobs come in.
	if err := os.Remove(filepath.Join(out, contentDir, "ingest")); err != nil {
		return err
	}
	return modes(out)
}

// Everything that containerd would have stored.
func fill(r *request, out, meta, layers string) (err error) {
	blobs, err := local.NewStore(filepath.Join(out, contentDir))
	if err != nil {
		return err
	}
	store, err := storage.NewMetaStore(layers, func(o *bolt.Options) error { o.NoSync = true; return nil })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	db, err := bolt.Open(meta, 0o644, &bolt.Options{NoSync: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	inPlace := &inPlace{store: store, out: out, root: r.Root}
	mdb := metadata.NewDB(db, blobs, map[string]snapshots.Snapshotter{snapshotter: inPlace})
	ctx := namespaces.WithNamespace(context.Background(), namespace)
	if err := mdb.Init(ctx); err != nil {
		return err
	}
	if err := metadataNamespace(ctx, db); err != nil {
		return err
	}
	for i := range r.Images {
		if err := add(ctx, mdb, inPlace, r.Layers, &r.Images[i]); err != nil {
			return fmt.Errorf("add image %s: %w", r.Images[i].Name, err)
		}
	}
	return os.WriteFile(filepath.Join(out, mountsFile), inPlace.mounts.Bytes(), 0o600)
}

func metadataNamespace(ctx context.Context, db *bolt.DB) error {
	return db.Update(func(tx *bolt.Tx) error {
		return metadata.NewNamespaceStore(tx).Create(ctx, namespace, nil)
	})
}

// Layers, then manifest and config, then the names: as a pull does.
func add(ctx context.Context, mdb *metadata.DB, inPlace *inPlace, layers string, i *image) error {
	var manifest v1.Manifest
	if err := json.Unmarshal(i.Manifest, &manifest); err != nil {
		return fmt.Errorf("read its manifest: %w", err)
	}
	var config v1.Image
	if err := json.Unmarshal(i.Config, &config); err != nil {
		return fmt.Errorf("read its config: %w", err)
	}
	if found := digest.FromBytes(i.Config); found != manifest.Config.Digest {
		return fmt.Errorf("verify its config: expected %s, found %s", manifest.Config.Digest, found)
	}
	if len(config.RootFS.DiffIDs) == 0 || len(config.RootFS.DiffIDs) != len(manifest.Layers) {
		return fmt.Errorf("read its config: %d layers, the manifest has %d", len(config.RootFS.DiffIDs), len(manifest.Layers))
	}
	root := map[string]string{rootLabel: epoch.Format(time.RFC3339)}
	layersOf := mdb.Snapshotter(snapshotter)
	parent := ""
	for n, diff := range config.RootFS.DiffIDs {
		chain := identity.ChainID(config.RootFS.DiffIDs[:n+1]).String()
		if _, err := layersOf.Stat(ctx, chain); errdefs.IsNotFound(err) {
			inPlace.layer = filepath.Join(layers, diff.Encoded())
			key := "prepare-" + chain
			if _, err := layersOf.Prepare(ctx, key, parent, snapshots.WithLabels(root)); err != nil {
				return err
			}
			if err := layersOf.Commit(ctx, chain, key, snapshots.WithLabels(root)); err != nil {
				return err
			}
		} else if err != nil {
			return err
		}
		parent = chain
	}

	target := v1.Descriptor{
		MediaType: i.MediaType,
		Digest:    digest.FromBytes(i.Manifest),
		Size:      int64(len(i.Manifest)),
	}
	// The labels by which containerd's garbage collection goes from a manifest to what it names.
	children := append([]v1.Descriptor{manifest.Config}, manifest.Layers...)
	refs, of := map[string]string{}, map[string]int{}
	for _, child := range children {
		for _, key := range images.ChildGCLabels(child) {
			if index := of[key]; key[len(key)-1] == '.' {
				of[key]++
				key = fmt.Sprintf("%s%d", key, index)
			}
			refs[key] = child.Digest.String()
		}
	}
	for _, blob := range []struct {
		desc   v1.Descriptor
		bytes  []byte
		labels map[string]string
	}{
		{manifest.Config, i.Config, map[string]string{snapshotRefLabel: parent}},
		{target, i.Manifest, refs},
	} {
		ref := "prepare-" + blob.desc.Digest.String()
		reader := bytes.NewReader(blob.bytes)
		err := content.WriteBlob(ctx, mdb.ContentStore(), ref, reader, blob.desc, content.WithLabels(blob.labels))
		if err != nil {
			return err
		}
	}
	// CRI knows an image by the digest of its config, too.
	names := metadata.NewImageStore(mdb)
	for _, name := range []string{manifest.Config.Digest.String(), i.Name} {
		labels := map[string]string{managedLabel: managed, pinnedLabel: pinned}
		_, err := names.Create(ctx, images.Image{Name: name, Target: target, Labels: labels})
		// Two names of one image have the same config.
		if err != nil && !(errdefs.IsAlreadyExists(err) && name != i.Name) {
			return err
		}
	}
	return nil
}

// The overlayfs snapshotter, as far as it is needed, with its own store: it keeps no layer, but says where each one is.
type inPlace struct {
	// What is not needed, and not there.
	snapshots.Snapshotter
	store *storage.MetaStore
	// containerd's root directory, here and on the device.
	out, root string
	// Where the layer of the next snapshot is on the device.
	layer  string
	mounts bytes.Buffer
}

func (l *inPlace) Stat(ctx context.Context, key string) (info snapshots.Info, err error) {
	err = l.store.WithTransaction(ctx, false, func(ctx context.Context) error {
		_, info, _, err = storage.GetInfo(ctx, key)
		return err
	})
	return info, err
}

func (l *inPlace) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return nil, l.store.WithTransaction(ctx, true, func(ctx context.Context) error {
		snapshot, err := storage.CreateSnapshot(ctx, snapshots.KindActive, key, parent, opts...)
		if err != nil {
			return err
		}
		directory := filepath.Join(snapshotsDir, "snapshots", snapshot.ID)
		for _, name := range []string{"fs", "work"} {
			if err := os.MkdirAll(filepath.Join(l.out, directory, name), 0o711); err != nil {
				return err
			}
		}
		at := filepath.Join(l.root, directory, "fs")
		_, err = fmt.Fprintf(&l.mounts, "%s %s none bind,ro,nodev 0 0\n", l.layer, at)
		return err
	})
}

func (l *inPlace) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	return l.store.WithTransaction(ctx, true, func(ctx context.Context) error {
		// What removing it frees: a directory.
		_, err := storage.CommitActive(ctx, key, name, snapshots.Usage{Inodes: 1}, opts...)
		return err
	})
}

// The modes that containerd gives, whatever the umask.
func modes(out string) error {
	return filepath.WalkDir(out, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(out, path)
		if err != nil {
			return err
		}
		mode := os.FileMode(0o755)
		switch base := filepath.Base(relative); {
		case relative == metadataDir:
			mode = 0o711
		case base == "work":
			mode = 0o711
		case base == "meta.db":
			mode = 0o644
		case base == "metadata.db", relative == mountsFile:
			mode = 0o600
		case !entry.IsDir():
			// A blob.
			mode = 0o444
		case relative == ".", relative == snapshotsDir, filepath.Dir(relative) == snapshotsDir,
			filepath.Dir(filepath.Dir(relative)) == snapshotsDir:
			mode = 0o700
		}
		return os.Chmod(path, mode)
	})
}
