package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"

	"github.com/amphi-sfu/amphi/hls/storage"
)

// Job is the upload of an asset of the Recorder: its key is that of KeyOf. The recorder keeps the files until Stored.
func (r *Recorder) Job(a Asset) (storage.Job, error) {
	note, err := json.Marshal(a)
	if err != nil {
		return storage.Job{}, fmt.Errorf("making an upload of asset %s: %w", a.ID, err)
	}
	dir, err := filepath.Abs(r.Dir(a.Recording))
	if err != nil {
		return storage.Job{}, fmt.Errorf("making an upload of asset %s: %w", a.ID, err)
	}
	j := storage.Job{ID: a.ID, Note: note}
	if !nameOK(a.Recording) {
		return j, fmt.Errorf("making an upload of asset %s: %w", a.ID, ErrBadRequest)
	}
	// What the file needs goes first, so that a playlist that is there can be played.
	for _, name := range append(slices.Clone(a.With), a.File) {
		beside := a
		beside.File = name
		j.Files = append(j.Files, storage.File{Path: filepath.Join(dir, name), Key: KeyOf(beside), ContentType: contentTypes[path.Ext(name)]})
	}
	return j, nil
}

// KeyOf is where an asset is stored: room, session, recording and file.
func KeyOf(a Asset) string {
	session := a.Session
	if session == "" {
		session = "-"
	}
	return path.Join(storage.KeyPart(a.Room), storage.KeyPart(session), a.Recording, a.File)
}

// AssetOf is the asset that a Job was made of.
func AssetOf(j storage.Job) (Asset, error) {
	var a Asset
	if err := json.Unmarshal(j.Note, &a); err != nil {
		return a, fmt.Errorf("reading the asset of upload %s: %w", j.ID, err)
	}
	return a, nil
}

// Stored says that an asset is in the storage. When all of a recording are, its directory is removed; until then, those that are not are told by OnAsset
// after each start. What is known already is no error.
func (r *Recorder) Stored(a Asset) error {
	r.shelf.Lock()
	defer r.shelf.Unlock()
	if !nameOK(a.Recording) {
		return fmt.Errorf("noting a stored asset: %w", ErrBadRequest)
	}
	dir := r.Dir(a.Recording)
	m, err := loadManifest(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !slices.Contains(m.Stored, a.File) {
		m.Stored = append(m.Stored, a.File)
	}
	if m.Finished && len(m.left()) == 0 {
		if err := removeRecording(dir); err != nil {
			return fmt.Errorf("removing a recording that is stored: %w", err)
		}
		return nil
	}
	return m.save(dir)
}

// left are the assets that are not stored.
func (m *manifest) left() (list []Asset) {
	for _, a := range m.Assets {
		if !slices.Contains(m.Stored, a.File) {
			list = append(list, a)
		}
	}
	return list
}
