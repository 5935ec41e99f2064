package apikeyd

import (
	"context"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"

	apikeyv1 "example.com/apikeyd/clients/go/apikey/v1"
)

const (
	syncRetry = 250 * time.Millisecond
	// After an answer that another try soon would repeat.
	syncHopeless = time.Minute
)

// keySync keeps the lease of a guard: one call of SyncKeys after the other.
type keySync struct {
	local    *localKeys
	send     func(context.Context, *apikeyv1.SyncKeysRequest) (*apikeyv1.SyncKeysResponse, *NoDecision)
	deadline time.Duration
	stop     context.CancelFunc
	stopped  chan struct{}
}

func (s *keySync) run(ctx context.Context) {
	defer close(s.stopped)
	for ctx.Err() == nil {
		if wait := s.once(false); wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
		}
	}
}

// close gives the lease back, with the decisions that were not reported yet.
func (s *keySync) close() {
	s.stop()
	<-s.stopped
	s.once(true)
}

// once returns when the next call is due.
func (s *keySync) once(closing bool) time.Duration {
	request := s.local.request(closing)
	start, startMono := s.local.clock.now(), s.local.clock.monotonic()
	// The server may hold the call for a quarter of the lease.
	s.local.mu.Lock()
	timeout := s.local.lease/4 + s.deadline
	s.local.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	answer, err := s.send(ctx, request)
	if err == nil {
		s.local.apply(request, answer, start, startMono)
		return min(syncHopeless, max(0, answer.PollAfter.AsDuration()))
	}
	wait := max(syncRetry, err.RetryAfter)
	switch err.Code {
	case codes.InvalidArgument:
		// Never accepted, whenever it is sent again.
		s.local.confirm(request.Uses)
	case codes.Unauthenticated, codes.PermissionDenied, codes.FailedPrecondition, codes.Unimplemented:
		wait = syncHopeless
	}
	return wait*3/4 + rand.N(wait/2)
}
