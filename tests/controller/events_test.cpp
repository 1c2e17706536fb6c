// Asynchronous events, and Abort of the requests for them.
#include "controller/test_host.h"

namespace nvmf::controller {
namespace {

using nvme::LogPage;
using nvme::StatusCode;

class EventsTest : public ControllerTest {
 protected:
  void SetUp() override {
    start(one_subsystem({memory(1 << 20)}));
    h = &host();
    h->bring_up();
  }
  void enable() {
    ASSERT_TRUE(h->admin().send(nvme::set_async_events(nvme::kOaesNamespaceAttributes)).ok());
  }
  void add_namespace() { ASSERT_TRUE(target->add_namespace(kSubsystemNqn, memory(1 << 20))); }
  nvme::ChangedNamespaces changed(bool retain = false) {
    return nvme::ChangedNamespaces::decode(
        h->log(LogPage::changed_namespaces, nvme::kChangedNamespacesBytes, 0, retain).data);
  }

  TestHost* h = nullptr;
};

TEST_F(EventsTest, TellsOfANewNamespace) {
  enable();
  auto request = h->admin().start(nvme::async_event_request());
  loop.run_for(1s);
  EXPECT_FALSE(request->done);
  add_namespace();
  const Answer told = h->admin().wait(*request);
  ASSERT_TRUE(told.ok());
  const auto event = nvme::AsyncEvent::decode(told.dw0());
  EXPECT_EQ(event.type, nvme::AsyncEventType::notice);
  EXPECT_EQ(event.info, nvme::kNoticeNamespaceChanged);
  EXPECT_EQ(event.log_page, 4);

  // Silent until the log page has been read without "retain".
  auto second = h->admin().start(nvme::async_event_request());
  add_namespace();
  EXPECT_EQ(changed(/*retain=*/true).nsids, (std::vector<std::uint32_t>{2, 3}));
  add_namespace();
  loop.run_for(1s);
  EXPECT_FALSE(second->done);
  EXPECT_EQ(changed().nsids, (std::vector<std::uint32_t>{2, 3, 4}));
  EXPECT_TRUE(changed().nsids.empty());
  add_namespace();
  EXPECT_TRUE(h->admin().wait(*second).ok());
  EXPECT_EQ(h->identify_controller().nn, 5u);
}

TEST_F(EventsTest, HoldsAnEventUntilItIsAskedFor) {
  enable();
  add_namespace();
  const Answer told = h->admin().send(nvme::async_event_request());
  ASSERT_TRUE(told.ok());
  EXPECT_EQ(nvme::AsyncEvent::decode(told.dw0()).info, nvme::kNoticeNamespaceChanged);
}

TEST_F(EventsTest, SaysNothingThatWasNotEnabled) {
  auto request = h->admin().start(nvme::async_event_request());
  add_namespace();
  loop.run_for(1s);
  EXPECT_FALSE(request->done);
  EXPECT_EQ(changed().nsids, (std::vector<std::uint32_t>{2}));
  // An event that this controller does not have cannot be enabled.
  EXPECT_EQ(h->admin().send(nvme::set_async_events(nvme::kOaesAnaChange)).code(),
            code_of(StatusCode::invalid_field));
}

TEST_F(EventsTest, LimitsTheRequests) {
  std::vector<std::shared_ptr<Pending>> requests;
  for (std::size_t i = 0; i < kAsyncEventsMax; ++i) {
    requests.push_back(h->admin().start(nvme::async_event_request()));
  }
  EXPECT_EQ(h->admin().send(nvme::async_event_request()).code(),
            code_of(StatusCode::aer_limit_exceeded));
  EXPECT_TRUE(h->admin().send(nvme::keep_alive()).ok());
}

TEST_F(EventsTest, AbortsRequests) {
  auto request = h->admin().start(nvme::async_event_request());
  loop.run_until_idle();
  const Answer wrong =
      h->admin().send(nvme::abort_command(0, static_cast<std::uint16_t>(request->sqe.cid + 1)));
  ASSERT_TRUE(wrong.ok());
  EXPECT_EQ(wrong.dw0(), nvme::kAbortNotAborted);
  EXPECT_EQ(h->admin().send(nvme::abort_command(1, request->sqe.cid)).dw0(),
            nvme::kAbortNotAborted);
  const Answer aborted = h->admin().send(nvme::abort_command(0, request->sqe.cid));
  ASSERT_TRUE(aborted.ok());
  EXPECT_EQ(aborted.dw0(), 0u);
  EXPECT_EQ(h->admin().wait(*request).code(), code_of(StatusCode::abort_requested));
}

TEST_F(EventsTest, EndsRequestsAtReset) {
  auto request = h->admin().start(nvme::async_event_request());
  loop.run_until_idle();
  ASSERT_TRUE(h->set_cc({}).ok());
  EXPECT_EQ(h->admin().wait(*request).code(), code_of(StatusCode::aborted_sq_deletion));
}

TEST_F(EventsTest, LosesRequestsWithTheConnection) {
  enable();
  auto request = h->admin().start(nvme::async_event_request());
  loop.run_until_idle();
  h->admin().end();
  // The controller may be on its way out when the event comes.
  add_namespace();
  loop.run_for(1s);
  EXPECT_TRUE(request->done);
  EXPECT_FALSE(request->answer().answered());
}

}  // namespace
}  // namespace nvmf::controller
