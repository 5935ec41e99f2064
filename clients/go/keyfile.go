package apikeyd

import (
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"sync"
)

const maxKeyFileBytes = 4096

var keyShape = regexp.MustCompile(`^[\x21-\x7e]+$`)

// keyFile is the guard's own key, from its file. A file that is missing, empty or unreadable leaves the key unchanged.
type keyFile struct {
	path string

	mu   sync.Mutex
	info os.FileInfo
	key  string
}

func openKeyFile(path string) (*keyFile, error) {
	file := &keyFile{path: path}
	if err := file.read(); err != nil {
		return nil, fmt.Errorf("apikeyd: KeyFile: %w", err)
	}
	return file, nil
}

// current returns the key. It reads the file only when the file was replaced or its time or size changed.
func (f *keyFile) current() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err == nil && !(os.SameFile(info, f.info) && info.ModTime().Equal(f.info.ModTime()) && info.Size() == f.info.Size()) {
		_ = f.read()
	}
	return f.key
}

// reread reads the file even when it seems unchanged.
func (f *keyFile) reread() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.read()
	return f.key
}

func (f *keyFile) read() error {
	// Stat before reading: a change in between is noticed the next time.
	info, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > maxKeyFileBytes {
		return fmt.Errorf("%s is no file with a key", f.path)
	}
	bytes, err := os.ReadFile(f.path)
	if err != nil {
		return err
	}
	key := strings.TrimSpace(string(bytes))
	if !keyShape.MatchString(key) {
		return errors.New(f.path + " holds no key")
	}
	f.info, f.key = info, key
	return nil
}
