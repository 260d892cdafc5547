package local

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestAStepThatWorksSaysSoWithItsSeconds(t *testing.T) {
	var out bytes.Buffer
	err := newProgress(&out).do(context.Background(), step{name: "API server answers", bound: time.Minute,
		run: func(context.Context, func(error)) error { return nil }})
	if err != nil || !strings.Contains(out.String(), "] API server answers (0.0 s)\n") {
		t.Errorf("said %q, %v", out.String(), err)
	}
}

func TestAStepThatPassesItsBoundNamesTheReasonAndTheLog(t *testing.T) {
	log := filepath.Join(t.TempDir(), "apiserver.log")
	if err := os.WriteFile(log, []byte("first line\n"+strings.Repeat("noise\n", 20)+"E: no disk\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := newProgress(&bytes.Buffer{}).do(context.Background(), step{name: "API server answers", bound: time.Millisecond, log: log,
		run: func(ctx context.Context, note func(error)) error {
			return await(ctx, note, func() error { return errors.New("connection refused") })
		}})
	if err == nil {
		t.Fatal("a step without end worked")
	}
	for _, text := range []string{"API server answers", "connection refused", "log: " + log, "| E: no disk"} {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("no %q in %q", text, err)
		}
	}
	if strings.Contains(err.Error(), "first line") {
		t.Error("the whole log is in the error")
	}
}

func TestAWaitThatIsOfNoUseEndsAtOnce(t *testing.T) {
	tries := 0
	err := await(context.Background(), func(error) {}, func() error {
		tries++
		return final{errors.New("the process has ended")}
	})
	if err == nil || err.Error() != "the process has ended" || tries != 1 {
		t.Errorf("%d tries, %v", tries, err)
	}
}

func TestTheFirstFailureOfWorkDoneTogetherEndsTheRest(t *testing.T) {
	broken := errors.New("broken")
	err := together(context.Background(),
		func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
		func(context.Context) error { return broken })
	if !errors.Is(err, broken) {
		t.Errorf("error: %v", err)
	}
}

func TestADirectoryThatNodesCoverIsRefused(t *testing.T) {
	for dir, seen := range map[string]bool{"/var/tmp/x": true, "/var/library": true, "/var/lib/x": false, "/run": false} {
		if err := checkVisible(dir); (err == nil) != seen {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

func TestAnOldStateFileIsNeverMistakenForNone(t *testing.T) {
	dir := t.TempDir()
	if found, err := readState(dir); found != nil || err != nil {
		t.Errorf("an empty directory holds %v, %v", found, err)
	}
	if err := writeState(dir, &state{Nodes: 2, HostPort: 16443, Complete: true}); err != nil {
		t.Fatal(err)
	}
	if found, err := readState(dir); err != nil || found.Nodes != 2 || !found.Complete {
		t.Errorf("read back %v, %v", found, err)
	}
	if err := os.WriteFile(stateFile(dir), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := readState(dir); err == nil {
		t.Error("a damaged state file was read")
	}
}
