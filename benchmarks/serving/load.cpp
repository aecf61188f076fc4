// Sends HTTP requests at given times over keep-alive connections, from one thread. Driven by `generator.py`.
//
//   load PORT PLAN RESULT CONNECTIONS MODE SECONDS
//
// PLAN: uint32 requests, uint32 arrivals; per request uint32 length and bytes; per arrival float64 seconds from the
// start and uint32 request. RESULT: per arrival float64 scheduled, sent and done, in seconds from the start, int32
// status, uint32 length of the body; then all bodies. Status 0: the connection broke, -1: no answer before the end.
//
// MODE `open` sends every arrival at its time: if all connections are in use it waits for one, and its latency still
// counts from the scheduled time. MODE `closed` sends the arrivals in order, ignores their times, and sends the next on
// a connection as soon as it has answered, for SECONDS. In mode `open`, SECONDS is how long answers are awaited after
// the last arrival.
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <string>
#include <vector>

namespace {

struct Arrival {
  double scheduled = 0, sent = 0, done = 0;
  int32_t status = -1;
  uint32_t request = 0;
  std::string body;
};

struct Connection {
  int fd = -1;
  long arrival = -1;  // of the request in flight; -1: idle
  size_t written = 0;
  std::string received;
  bool is_retry = false;
};

std::vector<std::string> requests;
std::vector<Arrival> arrivals;
std::vector<Connection> connections;
std::vector<int> idle;    // places of open connections, the last used one last
std::vector<int> closed;  // places without a socket
std::deque<long> waiting; // arrivals without a connection
int epoll_fd, port;
size_t finished = 0;
timespec started;

double now() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (t.tv_sec - started.tv_sec) + 1e-9 * (t.tv_nsec - started.tv_nsec);
}

[[noreturn]] void fail(const char* what) {
  perror(what);
  exit(1);
}

void watch(Connection& c, int place, bool writing, int operation) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLRDHUP | (writing ? EPOLLOUT : EPOLLIN);
  event.data.u32 = place;
  epoll_ctl(epoll_fd, operation, c.fd, &event);
}

void open_connection(int place) {
  Connection& c = connections[place];
  c.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (c.fd < 0) fail("socket");
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(c.fd, reinterpret_cast<sockaddr*>(&address), sizeof address)) fail("connect");
  fcntl(c.fd, F_SETFL, O_NONBLOCK);
  int one = 1;
  setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  c.received.clear();
  watch(c, place, false, EPOLL_CTL_ADD);
}

void close_connection(int place) {
  Connection& c = connections[place];
  close(c.fd);
  c.fd = -1;
  closed.push_back(place);
}

void send_rest(int place) {
  Connection& c = connections[place];
  const std::string& bytes = requests[arrivals[c.arrival].request];
  while (c.written < bytes.size()) {
    ssize_t n = send(c.fd, bytes.data() + c.written, bytes.size() - c.written, MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EAGAIN) watch(c, place, true, EPOLL_CTL_MOD);
      return;  // other errors show when reading
    }
    c.written += n;
  }
}

void begin(int place, long arrival) {
  Connection& c = connections[place];
  c.arrival = arrival;
  c.written = 0;
  c.received.clear();
  arrivals[arrival].sent = now();
  send_rest(place);
}

// Sends an arrival on a free connection, the most recently used first; returns false if there is none.
bool dispatch(long arrival) {
  int place;
  if (!idle.empty()) {
    place = idle.back();
    idle.pop_back();
  } else if (!closed.empty()) {
    place = closed.back();
    closed.pop_back();
    open_connection(place);
  } else {
    return false;
  }
  connections[place].is_retry = false;
  begin(place, arrival);
  return true;
}

void finish(long arrival, int status, std::string body) {
  Arrival& a = arrivals[arrival];
  a.done = now();
  a.status = status;
  a.body = std::move(body);
  ++finished;
}

// Reads a header's value in lower case, or an empty string.
std::string header(const std::string& head, const char* name) {
  size_t length = strlen(name);
  for (size_t at = head.find("\r\n"); at != std::string::npos; at = head.find("\r\n", at + 2)) {
    if (strncasecmp(head.data() + at + 2, name, length) == 0 && head[at + 2 + length] == ':') {
      size_t from = head.find_first_not_of(' ', at + 3 + length);
      std::string value = head.substr(from, head.find("\r\n", from) - from);
      std::transform(value.begin(), value.end(), value.begin(), ::tolower);
      return value;
    }
  }
  return "";
}

// Reads what has arrived. Returns false if the connection was closed.
bool receive(int place) {
  Connection& c = connections[place];
  char buffer[65536];
  for (;;) {
    ssize_t n = recv(c.fd, buffer, sizeof buffer, 0);
    if (n > 0) {
      c.received.append(buffer, n);
      if (n == sizeof buffer) continue;
    }
    if (n == 0 || (n < 0 && errno != EAGAIN)) {
      long arrival = c.arrival;
      bool silent = c.received.empty() && !c.is_retry;
      c.arrival = -1;
      close_connection(place);
      if (arrival < 0) return false;
      if (silent) {  // an idle connection that the server closed meanwhile
        closed.pop_back();
        open_connection(place);
        c.is_retry = true;
        begin(place, arrival);
        return true;
      }
      finish(arrival, 0, "");
      return false;
    }
    break;
  }
  size_t end = c.received.find("\r\n\r\n");
  if (c.arrival < 0 || end == std::string::npos) return true;
  std::string head = c.received.substr(0, end + 2), length = header(head, "content-length");
  if (length.empty()) {
    fprintf(stderr, "a response without content-length:\n%s\n", head.c_str());
    exit(1);
  }
  size_t total = end + 4 + strtoul(length.c_str(), nullptr, 10);
  if (c.received.size() < total) return true;
  finish(c.arrival, atoi(head.c_str() + 9), c.received.substr(end + 4, total - end - 4));
  c.arrival = -1;
  if (header(head, "connection") == "close") {
    close_connection(place);
    return false;
  }
  idle.push_back(place);
  return true;
}

void wait_for_events(double seconds) {
  epoll_event events[256];
  timespec timeout{time_t(seconds), long(1e9 * (seconds - double(time_t(seconds))))};
  int count = epoll_pwait2(epoll_fd, events, 256, &timeout, nullptr);
  for (int i = 0; i < count; ++i) {
    int place = events[i].data.u32;
    if (connections[place].fd < 0) continue;
    bool was_idle = connections[place].arrival < 0;
    if (events[i].events & EPOLLOUT) {
      watch(connections[place], place, false, EPOLL_CTL_MOD);
      if (!was_idle) send_rest(place);
    }
    if (events[i].events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) {
      bool is_open = receive(place);
      if (was_idle && !is_open) idle.erase(std::find(idle.begin(), idle.end(), place));
    }
  }
}

void read_plan(const char* path) {
  FILE* file = fopen(path, "rb");
  if (!file) fail(path);
  auto number = [&] {
    uint32_t value;
    if (fread(&value, 4, 1, file) != 1) fail(path);
    return value;
  };
  requests.resize(number());
  arrivals.resize(number());
  for (auto& request : requests) {
    request.resize(number());
    if (fread(request.data(), 1, request.size(), file) != request.size()) fail(path);
  }
  for (auto& arrival : arrivals) {
    if (fread(&arrival.scheduled, 8, 1, file) != 1) fail(path);
    arrival.request = number();
  }
  fclose(file);
}

void write_result(const char* path, size_t count) {
  FILE* file = fopen(path, "wb");
  if (!file) fail(path);
  for (size_t i = 0; i < count; ++i) {
    const Arrival& a = arrivals[i];
    double times[3] = {a.scheduled, a.sent, a.done};
    uint32_t length = a.body.size();
    fwrite(times, 8, 3, file);
    fwrite(&a.status, 4, 1, file);
    fwrite(&length, 4, 1, file);
  }
  for (size_t i = 0; i < count; ++i) fwrite(arrivals[i].body.data(), 1, arrivals[i].body.size(), file);
  fclose(file);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 7) return 2;
  signal(SIGPIPE, SIG_IGN);
  prctl(PR_SET_TIMERSLACK, 1);
  sched_param parameter{};
  parameter.sched_priority = 1;
  bool real_time = sched_setscheduler(0, SCHED_FIFO, &parameter) == 0;
  port = atoi(argv[1]);
  read_plan(argv[2]);
  connections.resize(atoi(argv[4]));
  bool is_open_loop = !strcmp(argv[5], "open");
  double seconds = atof(argv[6]);
  epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  for (int place = int(connections.size()); place-- > 0;) closed.push_back(place);
  clock_gettime(CLOCK_MONOTONIC, &started);
  size_t next = 0, total = arrivals.size();
  if (is_open_loop) {
    double last = total ? arrivals.back().scheduled + seconds : 0;
    while (finished < total && now() < last) {
      while (next < total && arrivals[next].scheduled <= now()) waiting.push_back(long(next++));
      while (!waiting.empty() && dispatch(waiting.front())) waiting.pop_front();
      double until = next < total ? arrivals[next].scheduled : last;
      wait_for_events(std::max(0.0, until - now()));
    }
    next = total;
  } else {
    while (now() < seconds || finished < next) {
      while (next < total && now() < seconds && dispatch(long(next))) {
        arrivals[next].scheduled = arrivals[next].sent;
        ++next;
      }
      if (now() > seconds + 30 || (next == total && finished == next)) break;
      wait_for_events(std::max(0.001, std::min(0.1, seconds - now())));
    }
  }
  double wall = now();
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  write_result(argv[3], next);
  auto spent = [](const timeval& t) { return t.tv_sec + 1e-6 * t.tv_usec; };
  printf("{\"arrivals\": %zu, \"wall\": %.6f, \"user\": %.6f, \"system\": %.6f, \"real_time\": %s}\n", next, wall, spent(usage.ru_utime),
         spent(usage.ru_stime), real_time ? "true" : "false");
}
