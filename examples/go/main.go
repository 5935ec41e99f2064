// A backend that lets in whose key is good for traces:read.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"math"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	apikeyv1 "example.com/guard/generated/apikey/v1"
)

const deadline = 500 * time.Millisecond

// UNAVAILABLE says that no decision was made, so asking again is safe. The cost is taken by a decision only.
const retries = `{"methodConfig": [{
  "name": [{"service": "apikey.v1.ApiKeyAuth", "method": "ValidateKey"}],
  "retryPolicy": {"maxAttempts": 3, "initialBackoff": "0.05s", "maxBackoff": "0.2s", "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"]}
}]}`

type guard struct {
	apikeyd apikeyv1.ApiKeyAuthClient
	ownKey  string
}

func (g guard) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "bearer") || key == "" {
		refuse(w, http.StatusUnauthorized, "send a key")
		return
	}
	ip, _, _ := net.SplitHostPort(r.RemoteAddr)
	ctx, cancel := context.WithTimeout(r.Context(), deadline)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+g.ownKey)
	scope := "traces:read"
	answer, err := g.apikeyd.ValidateKey(ctx, &apikeyv1.ValidateKeyRequest{Key: key, RequiredScope: &scope, ClientIp: ip})
	if err != nil {
		for _, detail := range status.Convert(err).Details() {
			if info, ok := detail.(*errdetails.RetryInfo); ok {
				retryAfter(w, info.RetryDelay.AsDuration())
			}
		}
		refuse(w, http.StatusServiceUnavailable, "no decision")
		return
	}
	decision := strings.TrimPrefix(answer.Decision.String(), "DECISION_")
	switch {
	case answer.Valid:
		if len(answer.RateLimits) > 0 {
			w.Header().Set("RateLimit-Remaining", strconv.FormatUint(answer.RateLimits[0].Remaining, 10))
		}
		_ = json.NewEncoder(w).Encode(map[string][]string{"traces": {}})
	case decision == "MALFORMED" || decision == "NOT_FOUND":
		refuse(w, http.StatusUnauthorized, decision)
	case decision == "RATE_LIMITED" || decision == "LOCKED_OUT":
		retryAfter(w, answer.RetryAfter.AsDuration())
		refuse(w, http.StatusTooManyRequests, decision)
	default:
		refuse(w, http.StatusForbidden, decision)
	}
}

func refuse(w http.ResponseWriter, code int, text string) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": text})
}

func retryAfter(w http.ResponseWriter, wait time.Duration) {
	w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
}

func setting(name, otherwise string) string {
	if value := os.Getenv(name); value != "" {
		return value
	}
	return otherwise
}

func main() {
	key, err := os.ReadFile(os.Getenv("APIKEYD_KEY_FILE"))
	if err != nil {
		log.Fatal(err)
	}
	channel, err := grpc.NewClient(setting("APIKEYD_ADDRESS", "127.0.0.1:50051"),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(retries))
	if err != nil {
		log.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:"+setting("PORT", "8000"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("listening on %d\n", listener.Addr().(*net.TCPAddr).Port)
	g := guard{apikeyv1.NewApiKeyAuthClient(channel), strings.TrimSpace(string(key))}
	server := http.Server{Handler: g, ReadHeaderTimeout: 5 * time.Second}
	log.Fatal(server.Serve(listener))
}
