package apikeyd

import (
	"sync"
	"time"

	apikeyv1 "example.com/apikeyd/clients/go/apikey/v1"
)

const maxBatch = 100

// pending is a question in flight; the fields below done are written before done is closed.
type pending struct {
	request *apikeyv1.ValidateKeyRequest
	done    chan struct{}

	response *apikeyv1.ValidateKeyResponse
	err      error
	calls    int
}

func (p *pending) verdict() (Verdict, *NoDecision) {
	if p.err != nil {
		return Verdict{}, noDecisionOf(p.err)
	}
	return verdictOf(p.response)
}

// batcher sends the questions of one window together, or earlier when a batch is full.
type batcher struct {
	window time.Duration
	send   func([]*pending)

	mu      sync.Mutex
	waiting []*pending
	timer   *time.Timer
}

func (b *batcher) add(asked *pending) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.waiting = append(b.waiting, asked)
	switch len(b.waiting) {
	case maxBatch:
		b.timer.Stop()
		b.flush()
	case 1:
		b.timer = time.AfterFunc(b.window, func() {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.flush()
		})
	}
}

func (b *batcher) flush() {
	// Nothing is left when the timer fires while a full batch is being sent.
	if len(b.waiting) > 0 {
		go b.send(b.waiting)
		b.waiting = nil
	}
}
