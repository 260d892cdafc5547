package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// pollInterval is how often a wait inside this package looks again.
const pollInterval = 20 * time.Millisecond

// Record identifies a started process beyond the reuse of its number.
type Record struct {
	// PID is the process number.
	PID int `json:"pid"`
	// Started is the kernel's start time of that process (field 22 of its stat file).
	Started string `json:"started"`
}

// Start starts a program in its own session, its output appended to log, and records it in file.
// Files are handed to it from descriptor 3 on.
func Start(args []string, log, file string, files ...*os.File) (Record, error) {
	output, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return Record{}, fmt.Errorf("failed to open the log: %w", err)
	}
	defer output.Close()
	command := exec.Command(args[0], args[1:]...)
	command.Stdout, command.Stderr, command.ExtraFiles = output, output, files
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return Record{}, fmt.Errorf("failed to start %s: %w", args[0], err)
	}
	record := Record{PID: command.Process.Pid}
	record.Started, _, _ = stat(record.PID)
	// Reaps it if it ends before this program does.
	go func() { _ = command.Wait() }()
	content, err := json.Marshal(record)
	if err != nil {
		return record, fmt.Errorf("failed to encode the record of %s: %w", args[0], err)
	}
	if err := os.WriteFile(file, content, 0o644); err != nil {
		return record, fmt.Errorf("failed to record the process of %s: %w", args[0], err)
	}
	return record, nil
}

// ReadRecord reads what Start recorded; a missing file is a record of nothing.
func ReadRecord(file string) (Record, error) {
	var record Record
	content, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return record, nil
	}
	if err == nil {
		err = json.Unmarshal(content, &record)
	}
	if err != nil {
		return Record{}, fmt.Errorf("failed to read the process record %s: %w", file, err)
	}
	return record, nil
}

// State is what a recorded process does.
type State string

// The states of a recorded process.
const (
	Running State = "running"
	Paused  State = "paused"
	Gone    State = "gone"
)

// State asks the kernel about a recorded process.
func (r Record) State() State {
	started, letter, err := stat(r.PID)
	switch {
	case err != nil || r.PID == 0 || started != r.Started || letter == "Z" || letter == "X":
		return Gone
	case letter == "T":
		return Paused
	default:
		return Running
	}
}

// Signal sends a signal to a recorded process, never to a stranger that has its number now.
func (r Record) Signal(signal syscall.Signal) error {
	if r.State() == Gone {
		return nil
	}
	if err := syscall.Kill(r.PID, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("failed to send %s to process %d: %w", signal, r.PID, err)
	}
	return nil
}

// Pause stops a recorded process and returns when none of its threads runs any more.
func (r Record) Pause(bound time.Duration) error {
	begun := time.Now()
	if err := r.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	for {
		still, err := r.standsStill()
		if err != nil || still {
			return err
		}
		if time.Since(begun) > bound {
			return fmt.Errorf("process %d still runs %s after SIGSTOP", r.PID, bound)
		}
		time.Sleep(pollInterval)
	}
}

// standsStill says whether every thread is stopped.
func (r Record) standsStill() (bool, error) {
	threads, err := filepath.Glob(filepath.Join("/proc", fmt.Sprint(r.PID), "task", "*", "stat"))
	if err != nil || len(threads) == 0 || r.State() == Gone {
		return false, fmt.Errorf("process %d is gone", r.PID)
	}
	for _, thread := range threads {
		// A thread that is gone by now does not run.
		if _, letter, err := statFile(thread); err == nil && letter != "T" {
			return false, nil
		}
	}
	return true, nil
}

// Stop ends a recorded process: asked first, killed after patience, and returns when it is gone.
func (r Record) Stop(patience, bound time.Duration) error {
	begun := time.Now()
	if err := errors.Join(r.Signal(syscall.SIGTERM), r.Signal(syscall.SIGCONT)); err != nil {
		return err
	}
	for r.State() != Gone {
		waited := time.Since(begun)
		if waited > patience {
			if err := r.Signal(syscall.SIGKILL); err != nil {
				return err
			}
		}
		if waited > patience+bound {
			return fmt.Errorf("process %d is still there %s after SIGKILL", r.PID, bound)
		}
		time.Sleep(pollInterval)
	}
	return nil
}

// stat reads the start time and the state letter of a process.
func stat(pid int) (started, letter string, err error) {
	return statFile(filepath.Join("/proc", fmt.Sprint(pid), "stat"))
}

func statFile(file string) (started, letter string, err error) {
	content, err := os.ReadFile(file)
	if err != nil {
		return "", "", err
	}
	// The second field is the program's name in parentheses and may hold anything.
	fields := strings.Fields(string(content[strings.LastIndex(string(content), ")")+1:]))
	const stateField, startField = 0, 19
	if len(fields) <= startField {
		return "", "", fmt.Errorf("%s is too short", file)
	}
	return fields[startField], fields[stateField], nil
}
