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

// keyFile is the guard's own key, as its file holds it now. A file that is gone, empty or unreadable changes nothing.
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

// current looks whether the file is another one, or has another time or size, and reads it only then.
func (f *keyFile) current() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	info, err := os.Stat(f.path)
	if err == nil && !(os.SameFile(info, f.info) && info.ModTime().Equal(f.info.ModTime()) && info.Size() == f.info.Size()) {
		_ = f.read()
	}
	return f.key
}

// reread reads the file, whatever it looks like.
func (f *keyFile) reread() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	_ = f.read()
	return f.key
}

func (f *keyFile) read() error {
	// Before the content: a change in between is seen the next time.
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
