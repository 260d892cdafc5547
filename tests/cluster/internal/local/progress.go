package local

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// How often a wait looks again, and how often a long step says that it still waits.
const (
	lookInterval   = 100 * time.Millisecond
	remindInterval = 10 * time.Second
)

// logTail is how many lines of a log an error shows.
const logTail = 8

// progress prints one line per step, with its seconds.
type progress struct {
	out   io.Writer
	begun time.Time
	mutex sync.Mutex
}

func newProgress(out io.Writer) *progress { return &progress{out: out, begun: time.Now()} }

func (p *progress) say(format string, args ...any) {
	p.mutex.Lock()
	defer p.mutex.Unlock()
	fmt.Fprintf(p.out, "[%5.1f s] %s\n", time.Since(p.begun).Seconds(), fmt.Sprintf(format, args...))
}

// step is one bounded piece of work.
type step struct {
	// name says, in the line of progress, what is true when the step is done.
	name string
	// bound is the longest that it may take.
	bound time.Duration
	// log is the file to read when it fails; empty if there is none.
	log string
	// run does it. It reports by note why it still waits.
	run func(ctx context.Context, note func(error)) error
}

// do runs a step to its end or its bound.
func (p *progress) do(ctx context.Context, s step) error {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, s.bound)
	defer cancel()
	var mutex sync.Mutex
	var last error
	note := func(err error) {
		mutex.Lock()
		defer mutex.Unlock()
		last = err
	}
	reason := func() error {
		mutex.Lock()
		defer mutex.Unlock()
		return last
	}
	done := make(chan error, 1)
	go func() { done <- s.run(ctx, note) }()
	remind := time.NewTicker(remindInterval)
	defer remind.Stop()
	for {
		select {
		case err := <-done:
			if err != nil {
				return s.failure(err, reason(), time.Since(begun))
			}
			p.say("%s (%.1f s)", s.name, time.Since(begun).Seconds())
			return nil
		case <-remind.C:
			p.say("  still waiting for: %s (%.0f of %.0f s)%s", s.name, time.Since(begun).Seconds(),
				s.bound.Seconds(), suffix(": ", reason()))
		}
	}
}

func suffix(before string, err error) string {
	if err == nil {
		return ""
	}
	return before + err.Error()
}

// failure is the error of a step, with the log to read and its end.
func (s step) failure(err, last error, took time.Duration) error {
	text := fmt.Sprintf("not reached: %s, after %.1f s: %v", s.name, took.Seconds(), err)
	if last != nil && !strings.Contains(err.Error(), last.Error()) {
		text += fmt.Sprintf(" (last: %v)", last)
	}
	if s.log != "" {
		text += "\nlog: " + s.log
		for _, line := range tail(s.log) {
			text += "\n  | " + line
		}
	}
	return fmt.Errorf("%s", text)
}

func tail(file string) []string {
	opened, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer opened.Close()
	var lines []string
	scanner := bufio.NewScanner(opened)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		lines = append(lines, scanner.Text())
		if len(lines) > logTail {
			lines = lines[1:]
		}
	}
	return lines
}

// final marks an error for which waiting longer is of no use.
type final struct{ error }

// await tries until it works, until trying is of no use, or until the step's bound.
func await(ctx context.Context, note func(error), try func() error) error {
	for {
		err := try()
		if err == nil {
			return nil
		}
		if ended, ok := err.(final); ok {
			return ended.error
		}
		note(err)
		select {
		case <-ctx.Done():
			return fmt.Errorf("the bound has passed: %w", err)
		case <-time.After(lookInterval):
		}
	}
}

// together runs pieces of work at once and returns the first error; the others are told to end.
func together(ctx context.Context, work ...func(ctx context.Context) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, len(work))
	for _, piece := range work {
		go func() { ended <- piece(ctx) }()
	}
	var first error
	for range work {
		if err := <-ended; err != nil && first == nil {
			first = err
			cancel()
		}
	}
	return first
}
