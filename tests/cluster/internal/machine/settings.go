package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ChangedSettings are the settings of the whole machine that a kubelet writes when it starts, and the limit that
// many kubelets and containers need raised. They are put back when the cluster goes.
var ChangedSettings = []string{
	"vm/overcommit_memory", "vm/panic_on_oom",
	"kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
	"fs/inotify/max_user_instances",
}

// ReadSettings reads those of the named settings that this machine has.
func ReadSettings(names []string) (map[string]string, error) {
	values := map[string]string{}
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join("/proc/sys", name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("failed to read the setting %s: %w", name, err)
		}
		values[name] = strings.TrimSpace(string(content))
	}
	return values, nil
}

// WriteSettings writes settings that differ from what is asked; all are tried.
func WriteSettings(values map[string]string) error {
	var failures []error
	for name, value := range values {
		file := filepath.Join("/proc/sys", name)
		if present, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(present)) == value {
			continue
		}
		if err := os.WriteFile(file, []byte(value), 0o644); err != nil {
			failures = append(failures, fmt.Errorf("failed to write the setting %s: %w", name, err))
		}
	}
	return errors.Join(failures...)
}
