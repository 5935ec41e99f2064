package apikeyd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	apikeyv1 "example.com/apikeyd/clients/go/apikey/v1"
)

const ownKey = "audit_v1_GuardsOwnKey_000000001"

func writeKey(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "guard.key")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// server answers by its functions, and counts calls.
type server struct {
	apikeyv1.UnimplementedApiKeyAuthServer
	mu      sync.Mutex
	sizes   []int
	singles int
	// short: the last answer of a batch is left out.
	short  bool
	answer func(*apikeyv1.ValidateKeyRequest) (*apikeyv1.ValidateKeyResponse, error)
}

func good(*apikeyv1.ValidateKeyRequest) (*apikeyv1.ValidateKeyResponse, error) {
	return &apikeyv1.ValidateKeyResponse{Decision: apikeyv1.Decision_DECISION_VALID, Valid: true}, nil
}

func (s *server) ValidateKey(_ context.Context, request *apikeyv1.ValidateKeyRequest) (*apikeyv1.ValidateKeyResponse, error) {
	s.mu.Lock()
	s.singles++
	s.mu.Unlock()
	return s.answer(request)
}

func (s *server) BatchValidateKeys(
	_ context.Context, batch *apikeyv1.BatchValidateKeysRequest,
) (*apikeyv1.BatchValidateKeysResponse, error) {
	s.mu.Lock()
	s.sizes = append(s.sizes, len(batch.Requests))
	s.mu.Unlock()
	answers := &apikeyv1.BatchValidateKeysResponse{}
	for _, request := range batch.Requests {
		answer, err := s.answer(request)
		if err != nil {
			return nil, err
		}
		answers.Responses = append(answers.Responses, answer)
	}
	if s.short {
		answers.Responses = answers.Responses[1:]
	}
	return answers, nil
}

func (s *server) start(t *testing.T, options Options) *Guard {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	running := grpc.NewServer()
	apikeyv1.RegisterApiKeyAuthServer(running, s)
	go running.Serve(listener)
	t.Cleanup(running.Stop)
	options.Address, options.KeyFile = "http://"+listener.Addr().String(), writeKey(t, ownKey)
	if options.Deadline == 0 {
		options.Deadline = 10 * time.Second
	}
	guard, err := New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { guard.Close() })
	return guard
}

func TestOptionsThatCannotWorkAreNamed(t *testing.T) {
	key := writeKey(t, ownKey)
	for name, options := range map[string]Options{
		"Address":     {Address: "ftp://host:1", KeyFile: key},
		"Address ":    {KeyFile: key},
		"Deadline":    {Address: "host:1", KeyFile: key, Deadline: -1},
		"BatchWindow": {Address: "host:1", KeyFile: key, BatchWindow: time.Second},
		"guard.key":   {Address: "host:1", KeyFile: writeKey(t, "audit_v1_two words")},
		"no key":      {Address: "host:1", KeyFile: writeKey(t, " \n")},
		"/nowhere":    {Address: "host:1", KeyFile: "/nowhere"},
		"/tmp":        {Address: "host:1", KeyFile: "/tmp"},
	} {
		guard, err := New(options)
		if err == nil || guard != nil || !strings.Contains(err.Error(), strings.TrimSpace(name)) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "two words") {
			t.Errorf("what the file holds was told: %v", err)
		}
	}
}

func TestRulesThatDoNotHoldPanicBeforeAnyRequest(t *testing.T) {
	guard := (&server{answer: good}).start(t, Options{})
	for name, use := range map[string]func(){
		"nothing chosen": func() { guard.HTTP(Rule{}) },
		"two chosen":     func() { guard.HTTP(Rule{Scope: "a:b", Open: true}) },
		"hops":           func() { guard.HTTP(Rule{AnyKey: true, TrustedHops: 17}) },
		"cost":           func() { guard.HTTP(Rule{AnyKey: true, Cost: 1_000_000_001}) },
		"header":         func() { guard.HTTP(Rule{AnyKey: true, KeyHeaders: []string{"a b"}}) },
		"no headers":     func() { guard.HTTP(Rule{AnyKey: true, KeyHeaders: []string{}}) },
		"method":         func() { guard.UnaryServerInterceptor(Rules{"Check": {AnyKey: true}}) },
		"method's rule":  func() { guard.StreamServerInterceptor(Rules{"*": {}}) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			use()
		}()
	}
}

func TestASecretIsNeverFormattedOrLogged(t *testing.T) {
	question := Question{Key: ownKey}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "key", question.Key, "question", question)
	written, _ := json.Marshal(question)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		log.WriteString(fmt.Sprintf(verb, question))
	}
	if text := log.String() + string(written); strings.Contains(text, "audit_v1_") || strings.Contains(text, "61756469745f") {
		t.Error(text)
	}
}

func TestAnErrorRepeatsNothingOfTheServers(t *testing.T) {
	echo := func(request *apikeyv1.ValidateKeyRequest) (*apikeyv1.ValidateKeyResponse, error) {
		return nil, status.Error(codes.Internal, request.Key)
	}
	guard := (&server{answer: echo}).start(t, Options{})
	_, err := guard.Validate(context.Background(), Question{Key: "audit_v1_X"})
	for each := err; each != nil; each = errors.Unwrap(each) {
		if strings.Contains(fmt.Sprintf("%+v", each), "audit_v1_") {
			t.Error(each)
		}
	}
	if err == nil || err.Error() != "apikeyd: no decision: Internal" {
		t.Error(err)
	}
}

func TestABatchIsFullAtAHundred(t *testing.T) {
	s := &server{answer: good}
	guard := s.start(t, Options{BatchWindow: 100 * time.Millisecond})
	var all sync.WaitGroup
	for range 250 {
		all.Add(1)
		go func() {
			defer all.Done()
			if verdict, err := guard.Validate(context.Background(), Question{Key: "k"}); err != nil || !verdict.OK() {
				t.Error(verdict, err)
			}
		}()
	}
	all.Wait()
	sum := 0
	for _, size := range s.sizes {
		sum += size
		if size > 100 {
			t.Error(s.sizes)
		}
	}
	if sum != 250 || s.singles != 0 || len(s.sizes) > 25 {
		t.Error(s.sizes, s.singles)
	}
}

func TestAQuestionThatIsRefusedFailsNobodyElseInItsBatch(t *testing.T) {
	s := &server{answer: func(request *apikeyv1.ValidateKeyRequest) (*apikeyv1.ValidateKeyResponse, error) {
		if request.Key == "bad" {
			return nil, status.Error(codes.InvalidArgument, "")
		}
		return good(request)
	}}
	guard := s.start(t, Options{BatchWindow: 50 * time.Millisecond})
	var all sync.WaitGroup
	for _, key := range []Secret{"bad", "one", "two"} {
		all.Add(1)
		go func() {
			defer all.Done()
			if verdict, err := guard.Validate(context.Background(), Question{Key: key}); (err == nil) == (key == "bad") {
				t.Error(string(key), verdict, err)
			}
		}()
	}
	all.Wait()
}

func TestABatchThatComesBackShortDecidesNothing(t *testing.T) {
	guard := (&server{answer: good, short: true}).start(t, Options{BatchWindow: 50 * time.Millisecond})
	var all sync.WaitGroup
	for range 2 {
		all.Add(1)
		go func() {
			defer all.Done()
			if verdict, err := guard.Validate(context.Background(), Question{Key: "k"}); err == nil || verdict.OK() {
				t.Error(verdict, err)
			}
		}()
	}
	all.Wait()
}

func TestAKeyThatIsRefusedIsReadAgainWhateverItsFileLooksLike(t *testing.T) {
	var guard *Guard
	refusals := 0
	guard = (&server{answer: func(request *apikeyv1.ValidateKeyRequest) (*apikeyv1.ValidateKeyResponse, error) {
		if refusals++; refusals == 1 {
			return nil, status.Error(codes.Unauthenticated, "")
		}
		return good(request)
	}}).start(t, Options{})
	before, err := os.Stat(guard.options.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	other := strings.Repeat("k", len(ownKey))
	os.WriteFile(guard.options.KeyFile, []byte(other), 0o600)
	os.Chtimes(guard.options.KeyFile, before.ModTime(), before.ModTime())
	if verdict, err := guard.Validate(context.Background(), Question{Key: "k"}); err != nil || !verdict.OK() {
		t.Error(verdict, err)
	}
	if guard.key.current() != other {
		t.Error("the file was not read again")
	}
}

func TestOnlyApikeydCanSayThatTheGuardAsksWrongly(t *testing.T) {
	for domain, wrongly := range map[string]bool{"apikey.v1": true, "proxy.example": false} {
		guard := (&server{answer: func(*apikeyv1.ValidateKeyRequest) (*apikeyv1.ValidateKeyResponse, error) {
			info := &errdetails.ErrorInfo{Reason: "CREDENTIAL_INVALID", Domain: domain}
			said, err := status.New(codes.Unauthenticated, "").WithDetails(info)
			if err != nil {
				t.Error(err)
			}
			return nil, said.Err()
		}}).start(t, Options{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
		_, err := guard.Validate(context.Background(), Question{Key: "k"})
		var none *NoDecision
		if !errors.As(err, &none) || none.Misconfigured != wrongly {
			t.Error(domain, err)
		}
	}
}

func TestWhoGivesUpInABatchTakesNobodyAlong(t *testing.T) {
	asked, release := make(chan struct{}), make(chan struct{})
	var first sync.Once
	guard := (&server{answer: func(request *apikeyv1.ValidateKeyRequest) (*apikeyv1.ValidateKeyResponse, error) {
		first.Do(func() { close(asked) })
		<-release
		return good(request)
	}}).start(t, Options{BatchWindow: 20 * time.Millisecond})
	ctx, giveUp := context.WithCancel(context.Background())
	gone := make(chan error)
	go func() {
		_, err := guard.Validate(ctx, Question{Key: "one"})
		gone <- err
	}()
	stays := make(chan error)
	go func() {
		verdict, err := guard.Validate(context.Background(), Question{Key: "two"})
		if !verdict.OK() {
			t.Error(verdict)
		}
		stays <- err
	}()
	<-asked
	giveUp()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	close(release)
	if err := <-stays; err != nil {
		t.Error(err)
	}
}

func TestAFaultOfTheConfigurationIsLoggedOnce(t *testing.T) {
	var log bytes.Buffer
	var seen []string
	guard := (&server{answer: good}).start(t, Options{
		Logger:  slog.New(slog.NewTextHandler(&log, nil)),
		Observe: func(o Observation) { seen = append(seen, o.Outcome) },
	})
	handler := guard.HTTP(Rule{AnyKey: true, TrustedHops: 1})(http.NotFoundHandler())
	for range 3 {
		request, answer := httptest.NewRequest(http.MethodGet, "/", nil), httptest.NewRecorder()
		request.Header.Set("X-Api-Key", "k")
		handler.ServeHTTP(answer, request)
		if answer.Code != 500 || answer.Header().Get("Retry-After") != "" {
			t.Error(answer)
		}
	}
	if strings.Count(log.String(), "TRUSTED_HOPS") != 1 || len(seen) != 3 {
		t.Error(log.String(), seen)
	}
}

func TestAMethodHasTheNarrowestRuleAndWithoutOneLetsNobodyIn(t *testing.T) {
	guard := (&server{answer: good}).start(t, Options{})
	admits := func(rules Rules, method string) codes.Code {
		_, err := guard.UnaryServerInterceptor(rules)(context.Background(), nil, &grpc.UnaryServerInfo{FullMethod: method},
			func(context.Context, any) (any, error) { return nil, nil })
		return status.Code(err)
	}
	rules := Rules{"/p.S/Open": {Open: true}, "/p.S/*": {AnyKey: true}}
	for method, want := range map[string]codes.Code{
		"/p.S/Open": codes.OK, "/p.S/Closed": codes.Unauthenticated, "/p.Other/Open": codes.Internal,
	} {
		if got := admits(rules, method); got != want {
			t.Errorf("%s: %s", method, got)
		}
	}
	rules["*"] = Rule{Open: true}
	if got := admits(rules, "/p.Other/Any"); got != codes.OK {
		t.Error(got)
	}
}

func TestTheGeneratedCodeFitsTheProtos(t *testing.T) {
	path := os.Getenv("APIKEYD_PROTOS")
	if path == "" {
		t.Skip("test/clients/go.test.ts says where they are")
	}
	bytes, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	set := &descriptorpb.FileDescriptorSet{}
	if err := proto.Unmarshal(bytes, set); err != nil {
		t.Fatal(err)
	}
	protos, err := protodesc.NewFiles(set)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []protoreflect.FileDescriptor{apikeyv1.File_apikey_v1_auth_proto, apikeyv1.File_apikey_v1_key_proto} {
		for i := range file.Messages().Len() {
			fits(t, file.Messages().Get(i), protos)
		}
		for i := range file.Enums().Len() {
			ours := file.Enums().Get(i)
			theirs, err := protos.FindDescriptorByName(ours.FullName())
			for j := range ours.Values().Len() {
				value := ours.Values().Get(j)
				if err != nil || theirs.(protoreflect.EnumDescriptor).Values().ByName(value.Name()).Number() != value.Number() {
					t.Errorf("%s has changed: bash clients/generate.sh go", value.FullName())
				}
			}
		}
	}
}

// Other words of the protos do not matter.
func fits(t *testing.T, ours protoreflect.MessageDescriptor, protos *protoregistry.Files) {
	theirs, err := protos.FindDescriptorByName(ours.FullName())
	for i := range ours.Fields().Len() {
		field := ours.Fields().Get(i)
		if err == nil {
			like := theirs.(protoreflect.MessageDescriptor).Fields().ByNumber(field.Number())
			if like != nil && like.Name() == field.Name() && like.Kind() == field.Kind() &&
				like.Cardinality() == field.Cardinality() && like.HasPresence() == field.HasPresence() {
				continue
			}
		}
		t.Errorf("%s has changed: bash clients/generate.sh go", field.FullName())
	}
}
